// The Go peer: a bridge between plain gRPC and the tunnels of grpctunnel.
//
// The README above this directory describes how it is used. The Python peer has
// the same command line.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
)

const usage = `usage: peer COMMAND [OPTION...]

  serve-forward   accept forward tunnels, and pass their calls on to backends
  serve-reverse   open a reverse tunnel for each line "ADDRESS NAME" of standard
                  input, and pass its calls on to backends
  call-forward    accept plain calls, and make them through forward tunnels
  call-reverse    accept reverse tunnels and plain calls, and make these calls
                  through the tunnels
  relay           accept plain calls, and pass them on to backends without a tunnel

It runs until its standard input ends.

options:
`

// options are the options of the command line.
type options struct {
	revision string
	backend  string
	tunnel   string
}

// commands starts each of them; the program then waits for its standard input.
var commands = map[string]func(*options) error{
	"serve-forward": serveForward,
	"serve-reverse": serveReverse,
	"call-forward":  callForward,
	"call-reverse":  callReverse,
	"relay":         relay,
}

func main() {
	o := &options{}
	flags := flag.NewFlagSet("peer", flag.ExitOnError)
	flags.StringVar(&o.revision, "revision", "one", "the highest revision to offer: zero or one")
	flags.StringVar(&o.backend, "backend", "", "`ADDRESS` of the backend of calls that name none")
	flags.StringVar(&o.tunnel, "tunnel", "", "`ADDRESS` of the tunnel server for calls that name none")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		flags.Usage()
		os.Exit(2)
	}
	_ = flags.Parse(os.Args[2:]) // ends the program if it fails
	if o.revision != "zero" && o.revision != "one" || flags.NArg() > 0 {
		flags.Usage()
		os.Exit(2)
	}
	if err := commands[os.Args[1]](o); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		inputs <- lines.Text()
	}
}

// inputs are the lines of standard input.
var inputs = make(chan string, 1000)
