package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jhump/grpctunnel"
	"github.com/jhump/grpctunnel/tunnelpb"
	"google.golang.org/grpc"

	"interoppeer/internal/cases"
)

// patience is how long a tunnel may take to come about.
const patience = 10 * time.Second

// farewell is how long a tunnel may take to end.
const farewell = 2 * time.Second

// tunnel is what calls go through.
type tunnel struct {
	grpctunnel.TunnelChannel
	ended <-chan struct{} // nil where the server waits for that
}

// close lets the other end know, before the connection goes too.
func (t *tunnel) close() {
	t.Close()
	if t.ended == nil {
		return
	}
	select {
	case <-t.ended:
	case <-time.After(farewell):
	}
}

// source provides tunnels that nobody has used.
type source interface {
	next() (*tunnel, error)
}

// dialler opens forward tunnels.
type dialler struct {
	stub    tunnelpb.TunnelServiceClient
	options *options
}

func (d dialler) next() (*tunnel, error) {
	// The context is also the tunnel's life, so a timeout of its own would end it.
	ctx, cancel := context.WithCancel(d.options.open(context.Background()))
	impatient := time.AfterFunc(patience, cancel)
	ended := make(chan struct{})
	opened, err := grpctunnel.NewChannel(d.stub, d.options.revisions()...).
		Start(ctx, grpc.OnFinish(func(error) { close(ended) }))
	if err == nil && !impatient.Stop() {
		err = errors.New("the handler sent no settings")
	}
	if err == nil {
		err = opened.Err()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("no tunnel: %w", err)
	}
	return &tunnel{opened, ended}, nil
}

// gateway accepts reverse tunnels.
type gateway chan grpctunnel.TunnelChannel

func (g gateway) next() (*tunnel, error) {
	timeout := time.After(patience)
	for {
		select {
		case accepted := <-g:
			if accepted.Context().Err() == nil {
				return &tunnel{accepted, nil}, nil
			}
		case <-timeout:
			return nil, fmt.Errorf("no reverse tunnel within %v", patience)
		}
	}
}

func callForward(o *options) error {
	selected, err := o.selected()
	if err != nil {
		return err
	}
	conn, err := dial(o.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	return o.try(selected, dialler{tunnelpb.NewTunnelServiceClient(conn), o})
}

func callReverse(o *options) error {
	selected, err := o.selected()
	if err != nil {
		return err
	}
	opened := make(gateway, 1000)
	server, err := listen(o.address, grpctunnel.NewTunnelServiceHandler(grpctunnel.TunnelServiceHandlerOptions{
		OnReverseTunnelOpen: func(accepted grpctunnel.TunnelChannel) { opened <- accepted },
		DisableFlowControl:  o.revision == "zero",
	}))
	if err != nil {
		return err
	}
	defer opened.stop(server)
	return o.try(selected, opened)
}

// stop ends the server once all tunnels have ended, among them those that come still.
func (g gateway) stop(server *grpc.Server) {
	go func() {
		for accepted := range g {
			accepted.Close()
		}
	}()
	time.AfterFunc(farewell, server.Stop)
	server.GracefulStop()
}

// selected returns the cases that the command line names.
func (o *options) selected() ([]cases.Case, error) {
	if o.cases == "all" {
		return cases.All(), nil
	}
	byName := map[string]cases.Case{}
	for _, each := range cases.All() {
		byName[each.Name] = each
	}
	var selected []cases.Case
	for _, name := range strings.Split(o.cases, ",") {
		each, known := byName[name]
		if !known {
			return nil, misuse{fmt.Errorf("there is no case %q", name)}
		}
		selected = append(selected, each)
	}
	return selected, nil
}

// try runs cases, prints what came of them, and returns the failure to print last.
func (o *options) try(selected []cases.Case, tunnels source) error {
	var failed []string
	var last error
	var through *tunnel
	for _, each := range selected {
		var err error
		if through == nil {
			through, err = tunnels.next()
		}
		if err == nil {
			err = each.Run(through, o.timeout)
		}
		if through != nil && !o.oneTunnel {
			through.close()
			through = nil
		}
		verdict := "PASS"
		if err != nil {
			failed, last = append(failed, each.Name), err
			verdict = "FAIL " + oneLine(err)
		}
		if len(selected) > 1 {
			fmt.Println("CASE", each.Name, verdict)
		}
	}
	if through != nil {
		through.close()
	}
	switch {
	case len(failed) == 0:
		fmt.Println("PASS")
		return nil
	case len(selected) == 1:
		return last
	default:
		return fmt.Errorf("%d of %d cases: %s", len(failed), len(selected), strings.Join(failed, ", "))
	}
}
