// The benchmark's Go program: one end of a pair, on grpc-go alone or on a tunnel of the Go library.
//
// It speaks the protocol of the benchmark's own processes (crates/tunnel-bench/src/job.rs), so an
// end in Go can be paired with an end in Rust. A listening process prints {"port":N}. A client
// prints {"ready":true} once it can make calls. It then answers each line of its input, a job, with
// {"ok":{...}} or {"error":"..."}. Both processes end when their input ends.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
)

const usage = `usage: bench server --variant plain|forward
       bench server --variant reverse --dial PORT
       bench client --variant plain|forward --connect PORT
       bench client --variant reverse

All ports are of the loopback interface. What listens prints its own.

options:
`

// options are the command-line options.
type options struct {
	variant string
	port    int // the port to dial or connect to; 0 if this end listens
}

func parse(role string, arguments []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("bench "+role, flag.ExitOnError)
	flags.StringVar(&o.variant, "variant", "", "how calls get there: plain, forward or reverse")
	dials := role == "server"
	if dials {
		flags.IntVar(&o.port, "dial", 0, "the `port` to dial and serve at, in reverse")
	} else {
		flags.IntVar(&o.port, "connect", 0, "the `port` to connect to, unless in reverse")
	}
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	_ = flags.Parse(arguments) // exits on an error
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case !slices.Contains([]string{"plain", "forward", "reverse"}, o.variant):
		return nil, fmt.Errorf("there is no variant %q", o.variant)
	case (o.variant == "reverse") == dials && o.port == 0:
		return nil, errors.New("the port is missing")
	case (o.variant == "reverse") != dials && o.port != 0:
		return nil, errors.New("a port is given to an end that listens")
	}
	return o, nil
}

func main() {
	roles := map[string]func(*options) error{"server": server, "client": client}
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	run, known := roles[role]
	if !known {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	o, err := parse(role, os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// server serves until the input ends.
func server(o *options) error {
	ended := make(chan error, 2)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		ended <- nil
	}()
	go func() { ended <- serve(o) }()
	return <-ended
}

// client runs jobs until the input ends.
func client(o *options) error {
	conn, err := connect(o)
	if err != nil {
		return err
	}
	worker := newWorker(conn)
	if err := say(map[string]bool{"ready": true}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := say(worker.answer(lines.Bytes())); err != nil {
			return err
		}
	}
	return lines.Err()
}

// say prints one JSON line to standard output.
func say(what any) error {
	return json.NewEncoder(os.Stdout).Encode(what)
}
