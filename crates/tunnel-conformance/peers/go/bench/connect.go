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

// patience is how long a connection and its tunnel may take to come about.
const patience = 30 * time.Second

// farewell is how long the other end may be gone before that is a failure.
const farewell = time.Second

// serve serves the benchmark's service by a variant, for as long as that lasts.
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
		// Where the gateway has ended in order, so does the input, soon: that is no failure.
		time.Sleep(farewell)
		return fmt.Errorf("the reverse tunnel ended: %w", err)
	}
}

// connect returns what calls can be made over, once one has got through.
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

// accept is a gateway, and returns its first tunnel.
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

// listen serves at a free port, and says which.
func listen(register func(grpc.ServiceRegistrar)) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// Clients of ours ping more often than grpc-go allows; it would end their connections.
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

// dial prepares a connection, which is made when it is first needed.
func dial(port int) (*grpc.ClientConn, error) {
	return grpc.NewClient(fmt.Sprintf("passthrough:127.0.0.1:%d", port),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}
