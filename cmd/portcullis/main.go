// Command portcullis is the command line of Portcullis, for capture systems, contractors,
// admins and auditors. Each command is one call, or one careful sequence of calls, of the
// service, made as one of the profiles of a configuration file.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
