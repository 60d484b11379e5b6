//go:build !race

package main

// hourly is how many crossings a site has in an hour: 2,000 in all.
const hourly = 200
