package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jhump/grpctunnel"
	"github.com/jhump/grpctunnel/tunnelpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"interoppeer/internal/handler"
)

// serving lasts until standard input ends or a signal comes.
func serving() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		<-inputEnds()
		cancel()
	}()
	return ctx, func() { cancel(); stop() }
}

// listen serves tunnels, and says where.
func listen(address string, tunnels *grpctunnel.TunnelServiceHandler) (*grpc.Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	tunnelpb.RegisterTunnelServiceServer(server, tunnels.Service())
	go func() { _ = server.Serve(listener) }()
	fmt.Println("LISTENING", listener.Addr().(*net.TCPAddr).Port)
	return server, nil
}

// dial prepares a connection, which is made when it is first needed.
func dial(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return grpc.NewClient("passthrough:"+address, options...)
}

// revisions is how the library is told not to offer revision one.
func (o *options) revisions() []grpctunnel.TunnelOption {
	if o.revision == "zero" {
		return []grpctunnel.TunnelOption{grpctunnel.WithDisableFlowControl()}
	}
	return nil
}

// open adds the opening metadata to the context that a tunnel is opened with.
func (o *options) open(ctx context.Context) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.MD(o.opening).Copy())
}

func serveForward(o *options) error {
	ctx, stop := serving()
	defer stop()
	tunnels := grpctunnel.NewTunnelServiceHandler(grpctunnel.TunnelServiceHandlerOptions{
		NoReverseTunnels:   true,
		DisableFlowControl: o.revision == "zero",
	})
	handler.Register(tunnels)
	server, err := listen(o.address, tunnels)
	if err != nil {
		return err
	}
	<-ctx.Done()
	server.Stop()
	return nil
}

func serveReverse(o *options) error {
	ctx, stop := serving()
	defer stop()
	conn, err := dial(o.address, grpc.WithStreamInterceptor(sayConnected))
	if err != nil {
		return err
	}
	defer conn.Close()
	server := grpctunnel.NewReverseTunnelServer(tunnelpb.NewTunnelServiceClient(conn), o.revisions()...)
	handler.Register(server)
	for {
		_, err := server.Serve(o.open(ctx))
		switch {
		case ctx.Err() != nil:
			return nil
		case !o.again && err != nil:
			return fmt.Errorf("the tunnel: %w", err)
		case !o.again:
			return nil
		case err != nil:
			fmt.Fprintln(os.Stderr, "peer: the tunnel:", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// sayConnected tells when a tunnel has been accepted, which the library keeps to itself.
func sayConnected(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	streamer grpc.Streamer, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := streamer(ctx, desc, conn, method, options...)
	if err != nil {
		return nil, err
	}
	// Where a tunnel is refused there are no headers, and no error either.
	if headers, err := stream.Header(); err == nil && headers != nil {
		fmt.Println("CONNECTED")
	}
	return stream, nil
}
