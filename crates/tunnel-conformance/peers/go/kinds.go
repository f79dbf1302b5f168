package main

import (
	"strings"

	"google.golang.org/grpc"
)

var (
	unary        = &grpc.StreamDesc{}
	clientStream = &grpc.StreamDesc{ClientStreams: true}
	serverStream = &grpc.StreamDesc{ServerStreams: true}
	bidi         = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
)

// services has the methods of all services that are called through the bridge.
// grpctunnel passes on calls of registered methods only.
var services = map[string]map[string]*grpc.StreamDesc{
	"tunnel.conformance.v1.TestService": {
		"Unary": unary, "ClientStream": clientStream, "ServerStream": serverStream, "Bidi": bidi,
	},
	"grpc.testing.TestService": {
		"EmptyCall": unary, "UnaryCall": unary, "StreamingOutputCall": serverStream,
		"StreamingInputCall": clientStream, "FullDuplexCall": bidi, "HalfDuplexCall": bidi,
	},
	"grpchantesting.TestService": {
		"Unary": unary, "ClientStream": clientStream, "ServerStream": serverStream,
		"BidiStream": bidi, "UseExternalMessageTwice": unary,
	},
	"test.EchoService": {"Echo": unary, "EchoError": unary},
}

// kindOf returns the kind of a method. Unknown methods count as streams both ways,
// which can carry calls of any kind.
func kindOf(method string) *grpc.StreamDesc {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	if kind := services[service][name]; kind != nil {
		return kind
	}
	return bidi
}
