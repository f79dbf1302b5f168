package handler

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interoppeer/internal/generated/echopb"
)

// echo is the service of the examples.
type echo struct {
	echopb.UnimplementedEchoServiceServer
}

// Echo implements the service.
func (echo) Echo(_ context.Context, request *echopb.EchoRequest) (*echopb.EchoResponse, error) {
	return &echopb.EchoResponse{Message: "Echo: " + request.GetMessage()}, nil
}

// EchoError implements the service.
func (echo) EchoError(_ context.Context, request *echopb.EchoErrorRequest) (*echopb.EchoResponse, error) {
	if codes.Code(request.GetCode()) == codes.OK {
		return &echopb.EchoResponse{Message: request.GetMessage()}, nil
	}
	return nil, status.Error(codes.Code(request.GetCode()), request.GetMessage())
}
