// Package certs mints certificates for development and tests.
//
// An [Authority] lives in a directory: ca.pem, ca.key, and for every name it issued
// NAME.pem and NAME.key. `portcullisd dev` keeps one in [DefaultDir]. No key is ever
// committed: git ignores that directory and every file that ends in .key, and Open puts
// a .gitignore into whatever directory it is given. Keys are readable by their owner
// alone, from the moment that they exist.
//
// In production certificates come from the site's own authority, for example SPIRE, and
// this package has no part in it.
package certs
