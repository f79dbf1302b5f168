package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/jhump/grpctunnel"
	"github.com/jhump/grpctunnel/tunnelpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// listen serves on a free port, and returns it.
func listen(server *grpc.Server) (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// revisions are the library's options for the revisions that the peer offers.
func (o *options) revisions() []grpctunnel.TunnelOption {
	if o.revision == "zero" {
		return []grpctunnel.TunnelOption{grpctunnel.WithDisableFlowControl()}
	}
	return nil
}

func serveForward(o *options) error {
	tunnels := grpctunnel.NewTunnelServiceHandler(grpctunnel.TunnelServiceHandlerOptions{
		NoReverseTunnels:   true,
		DisableFlowControl: o.revision == "zero",
	})
	o.register(tunnels)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(1 << 30))
	tunnelpb.RegisterTunnelServiceServer(server, tunnels.Service())
	port, err := listen(server)
	fmt.Println("LISTENING", port)
	return err
}

func serveReverse(o *options) error {
	go func() {
		for line := range inputs {
			go func() {
				if err := o.serveTunnel(line); err != nil {
					fmt.Fprintln(os.Stderr, "peer: the reverse tunnel:", err)
				}
			}()
		}
	}()
	fmt.Println("READY")
	return nil
}

// serveTunnel opens a reverse tunnel and serves it to its end.
func (o *options) serveTunnel(line string) error {
	address, name, _ := strings.Cut(line, " ")
	conn, err := dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	server := grpctunnel.NewReverseTunnelServer(tunnelpb.NewTunnelServiceClient(conn), o.revisions()...)
	o.register(server)
	_, err = server.Serve(metadata.AppendToOutgoingContext(context.Background(), tunnelKey, name))
	return err
}

// register adds all services to a server of tunnels, with handlers that pass their
// calls on to the backend that the call names.
func (o *options) register(registrar grpc.ServiceRegistrar) {
	for service, methods := range services {
		desc := &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
		for name, kind := range methods {
			method := "/" + service + "/" + name
			if kind == unary {
				desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: name, Handler: o.unaryHandler(method)})
				continue
			}
			desc.Streams = append(desc.Streams, grpc.StreamDesc{
				StreamName: name, ClientStreams: kind.ClientStreams, ServerStreams: kind.ServerStreams,
				Handler: func(_ any, in grpc.ServerStream) error { return o.toBackend(in, method) },
			})
		}
		registrar.RegisterService(desc, struct{}{})
	}
}

func (o *options) unaryHandler(method string) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := &unaryCall{ctx: ctx, request: &message{}}
		if err := decode(in.request); err != nil {
			return nil, err
		}
		if err := o.toBackend(in, method); err != nil {
			return nil, err
		}
		return in.response, nil
	}
}

// unaryCall is the inbound side of a call whose handler is a function.
type unaryCall struct {
	ctx      context.Context
	request  *message
	response any
}

func (c *unaryCall) Context() context.Context        { return c.ctx }
func (c *unaryCall) SendHeader(md metadata.MD) error { return grpc.SendHeader(c.ctx, md) }
func (c *unaryCall) SetTrailer(md metadata.MD)       { _ = grpc.SetTrailer(c.ctx, md) }

func (c *unaryCall) SendMsg(response any) error {
	c.response = response
	return nil
}

func (c *unaryCall) RecvMsg(request any) error {
	if c.request == nil {
		return io.EOF
	}
	proto.Merge(request.(*message), c.request)
	c.request = nil
	return nil
}

func (o *options) toBackend(in inbound, method string) error {
	backend, err := o.backendOf(in.Context())
	if err != nil {
		return err
	}
	return forward(in, backend, method, kindOf(method), backendKey)
}

// backends are the connections to the backends so far.
var backends sync.Map

func (o *options) backendOf(ctx context.Context) (grpc.ClientConnInterface, error) {
	address, err := named(ctx, backendKey, o.backend)
	if err != nil {
		return nil, err
	}
	if known, ok := backends.Load(address); ok {
		return known.(*grpc.ClientConn), nil
	}
	conn, err := dial(address)
	if err != nil {
		return nil, err
	}
	if known, loaded := backends.LoadOrStore(address, conn); loaded {
		_ = conn.Close()
		return known.(*grpc.ClientConn), nil
	}
	return conn, nil
}

func relay(o *options) error {
	port, err := listen(plainServer(backendKey, o.backendOf))
	fmt.Println("LISTENING", port)
	return err
}
