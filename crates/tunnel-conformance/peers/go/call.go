package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jhump/grpctunnel"
	"github.com/jhump/grpctunnel/tunnelpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// openTimeout is how long a tunnel may take to open.
const openTimeout = 10 * time.Second

// opened is a forward tunnel that is open or about to be.
type opened struct {
	once    sync.Once
	channel grpctunnel.TunnelChannel
	err     error
}

// callForward makes calls through the forward tunnel that a call names by
// "ADDRESS NAME". The first call with a name opens its tunnel.
func callForward(o *options) error {
	var tunnels sync.Map
	server := plainServer(tunnelKey, func(ctx context.Context) (grpc.ClientConnInterface, error) {
		name, err := named(ctx, tunnelKey, o.tunnel)
		if err != nil {
			return nil, err
		}
		known, _ := tunnels.LoadOrStore(name, &opened{})
		tunnel := known.(*opened)
		tunnel.once.Do(func() { tunnel.channel, tunnel.err = o.open(name) })
		return tunnel.channel, tunnel.err
	})
	port, err := listen(server)
	fmt.Println("LISTENING", port)
	return err
}

func (o *options) open(name string) (grpctunnel.TunnelChannel, error) {
	address, _, _ := strings.Cut(name, " ")
	conn, err := dial(address)
	if err != nil {
		return nil, err
	}
	// The context is also the lifetime of the tunnel, so it must not have a timeout.
	ctx, cancel := context.WithCancel(context.Background())
	timer := time.AfterFunc(openTimeout, cancel)
	defer timer.Stop()
	channel, err := grpctunnel.NewChannel(tunnelpb.NewTunnelServiceClient(conn), o.revisions()...).Start(ctx)
	if err == nil {
		err = channel.Err()
	}
	if err != nil {
		cancel()
		_ = conn.Close()
		return nil, err
	}
	go func() {
		<-channel.Done()
		_ = conn.Close()
	}()
	return channel, nil
}

// callReverse makes calls through the reverse tunnels that were opened with the name
// that a call gives; a call without a name takes any tunnel.
func callReverse(o *options) error {
	handler := grpctunnel.NewTunnelServiceHandler(grpctunnel.TunnelServiceHandlerOptions{
		AffinityKey:        func(tunnel grpctunnel.TunnelChannel) any { return nameOf(tunnel.Context()) },
		DisableFlowControl: o.revision == "zero",
	})
	tunnels := grpc.NewServer(grpc.MaxRecvMsgSize(1 << 30))
	tunnelpb.RegisterTunnelServiceServer(tunnels, handler.Service())
	tunnelPort, err := listen(tunnels)
	if err != nil {
		return err
	}
	calls := plainServer(tunnelKey, func(ctx context.Context) (grpc.ClientConnInterface, error) {
		channel := handler.AsChannel()
		if name := nameOf(ctx); name != "" {
			channel = handler.KeyAsChannel(name)
		}
		waiting, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		return channel, channel.WaitForReady(waiting)
	})
	port, err := listen(calls)
	fmt.Println("LISTENING", port, tunnelPort)
	return err
}

func nameOf(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md.Get(tunnelKey), "")
}
