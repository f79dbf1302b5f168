package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jhump/grpctunnel"
	"github.com/jhump/grpctunnel/tunnelpb"
)

// patience is how long a tunnel may take to come about.
const patience = 10 * time.Second

// source provides tunnels to call through.
type source interface {
	// next returns a tunnel that nobody has used.
	next() (grpctunnel.TunnelChannel, error)
}

// dialler opens forward tunnels.
type dialler struct {
	stub    tunnelpb.TunnelServiceClient
	options *options
}

func (d dialler) next() (grpctunnel.TunnelChannel, error) {
	// The context is also the tunnel's life, so a timeout of its own would end it.
	ctx, cancel := context.WithCancel(d.options.open(context.Background()))
	impatient := time.AfterFunc(patience, cancel)
	tunnel, err := grpctunnel.NewChannel(d.stub, d.options.revisions()...).Start(ctx)
	if err == nil && !impatient.Stop() {
		err = errors.New("the handler sent no settings")
	}
	if err == nil {
		err = tunnel.Err()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("no tunnel: %w", err)
	}
	context.AfterFunc(tunnel.Context(), cancel)
	return tunnel, nil
}

// gateway accepts reverse tunnels.
type gateway chan grpctunnel.TunnelChannel

func (g gateway) next() (grpctunnel.TunnelChannel, error) {
	timeout := time.After(patience)
	for {
		select {
		case tunnel := <-g:
			if tunnel.Err() == nil && tunnel.Context().Err() == nil {
				return tunnel, nil
			}
		case <-timeout:
			return nil, fmt.Errorf("no reverse tunnel within %v", patience)
		}
	}
}

// forward does something with forward tunnels.
func (o *options) forward(do func(source) error) error {
	conn, err := dial(o.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(dialler{tunnelpb.NewTunnelServiceClient(conn), o})
}

// reverse does something with reverse tunnels.
func (o *options) reverse(do func(source) error) error {
	opened := make(gateway, 1000)
	server, err := listen(o.address, grpctunnel.NewTunnelServiceHandler(grpctunnel.TunnelServiceHandlerOptions{
		OnReverseTunnelOpen: func(tunnel grpctunnel.TunnelChannel) { opened <- tunnel },
		DisableFlowControl:  o.revision == "zero",
	}))
	if err != nil {
		return err
	}
	defer server.Stop()
	return do(opened)
}
