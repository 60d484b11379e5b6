//go:build race

package main

// hourly is how many crossings a site has in an hour. The race detector makes the database ten
// times as slow, so that with it a fifth of the traffic must do: what is measured is then wider.
const hourly = 40
