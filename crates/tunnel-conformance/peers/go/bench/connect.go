package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jhump/grpctunnel"
	"github.com/jhump/grpctunnel/tunnelpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"interoppeer/internal/generated/benchpb"
)

// patience is the limit for a connection and its tunnel to open.
const patience = 30 * time.Second

// farewell is the time between the end of the tunnel and its report as a failure.
const farewell = time.Second

// serve serves the benchmark's service by a variant until that fails.
func serve(o *options) error {
	switch o.variant {
	case "plain":
		return listen(func(server grpc.ServiceRegistrar) {
			benchpb.RegisterBenchServer(server, service{})
		})
	case "forward":
		tunnels := grpctunnel.NewTunnelServiceHandler(grpctunnel.TunnelServiceHandlerOptions{})
		benchpb.RegisterBenchServer(tunnels, service{})
		return listen(func(server grpc.ServiceRegistrar) {
			tunnelpb.RegisterTunnelServiceServer(server, tunnels.Service())
		})
	default:
		conn, err := dial(o.port)
		if err != nil {
			return err
		}
		server := grpctunnel.NewReverseTunnelServer(tunnelpb.NewTunnelServiceClient(conn))
		benchpb.RegisterBenchServer(server, service{})
		_, err = server.Serve(context.Background())
		// A gateway that ends cleanly also closes the input soon. The process then exits without a
		// failure.
		time.Sleep(farewell)
		return fmt.Errorf("the reverse tunnel ended: %w", err)
	}
}

// connect returns a connection for calls after a first call has succeeded.
func connect(o *options) (grpc.ClientConnInterface, error) {
	conn, err := open(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = benchpb.NewBenchClient(conn).Unary(ctx, &benchpb.Blob{})
	return conn, err
}

func open(o *options) (grpc.ClientConnInterface, error) {
	if o.variant == "reverse" {
		return accept()
	}
	conn, err := dial(o.port)
	if err != nil || o.variant == "plain" {
		return conn, err
	}
	return grpctunnel.NewChannel(tunnelpb.NewTunnelServiceClient(conn)).
		Start(context.Background())
}

// accept runs a gateway and returns its first reverse tunnel.
func accept() (grpc.ClientConnInterface, error) {
	opened := make(chan grpctunnel.TunnelChannel, 1)
	failed := make(chan error, 1)
	tunnels := grpctunnel.NewTunnelServiceHandler(grpctunnel.TunnelServiceHandlerOptions{
		OnReverseTunnelOpen: func(tunnel grpctunnel.TunnelChannel) { opened <- tunnel },
	})
	go func() {
		failed <- listen(func(server grpc.ServiceRegistrar) {
			tunnelpb.RegisterTunnelServiceServer(server, tunnels.Service())
		})
	}()
	select {
	case tunnel := <-opened:
		return tunnel, nil
	case err := <-failed:
		return nil, err
	case <-time.After(patience):
		return nil, errors.New("no reverse tunnel was opened")
	}
}

// listen serves at a free port and prints its number.
func listen(register func(grpc.ServiceRegistrar)) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// Rust clients ping more often than grpc-go allows by default. grpc-go would close their
	// connections.
	server := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
		MinTime:             time.Second,
		PermitWithoutStream: true,
	}))
	register(server)
	if err := say(map[string]int{"port": listener.Addr().(*net.TCPAddr).Port}); err != nil {
		return err
	}
	return server.Serve(listener)
}

// dial prepares a connection that connects on first use.
func dial(port int) (*grpc.ClientConn, error) {
	return grpc.NewClient(fmt.Sprintf("passthrough:127.0.0.1:%d", port),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}
