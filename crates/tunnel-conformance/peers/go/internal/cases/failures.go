package cases

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"interoppeer/internal/entry"
	pb "interoppeer/internal/generated/interoppb"
	"interoppeer/internal/pattern"
)

// failureCode tries every code with every kind, and tells of all that go wrong.
func failureCode(ctx context.Context, c *caller) error {
	var wrong []error
	for _, k := range allKinds {
		for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
			message := fmt.Sprintf("failure number %d", code)
			wrong = append(wrong, c.expectFailure(ctx, k, code, message))
		}
	}
	return errors.Join(wrong...)
}

// expectFailure asks for a failure before anything else.
func (c *caller) expectFailure(ctx context.Context, k kind, code codes.Code, message string) error {
	script := &pb.Script{Responses: 1, Failure: &pb.Failure{Code: int32(code), Message: message}}
	got := c.call(ctx, k, requests(script, 1, 10)...)
	if err := expectStatus(k.name, code, message, got.err); err != nil {
		return err
	}
	return expect(k.name+": responses", 0, len(got.responses))
}

func unicodeStatusMessage(ctx context.Context, c *caller) error {
	for _, message := range []string{"naïve café", "日本語 🦀", "100% of\nthree\tlines\r\n", " spaces around ", "", "%41"} {
		if err := c.expectFailure(ctx, unaryKind, codes.Aborted, message); err != nil {
			return err
		}
	}
	return nil
}

func failureDetails(ctx context.Context, c *caller) error {
	first, err := anypb.New(&pb.Entry{Key: "detail", Value: []byte(upTo(256))})
	if err != nil {
		return err
	}
	details := []*anypb.Any{first, {TypeUrl: "type.example/unknown.to.All", Value: []byte{1, 2, 3}}}
	for _, k := range allKinds {
		failure := &pb.Failure{Code: int32(codes.FailedPrecondition), Message: "with details", Details: details}
		got := c.call(ctx, k, requests(&pb.Script{Failure: failure}, 1, 10)...)
		if err := expectStatus(k.name, codes.FailedPrecondition, "with details", got.err); err != nil {
			return err
		}
		came := status.Convert(got.err).Proto().GetDetails()
		if err := expect(k.name+": status details", len(details), len(came)); err != nil {
			return err
		}
		for i := range details {
			if !proto.Equal(details[i], came[i]) {
				return fmt.Errorf("%s: status detail %d: expected %v, got %v", k.name, i, details[i], came[i])
			}
		}
	}
	return nil
}

func failureAfterHeaders(ctx context.Context, c *caller) error {
	headers := entry.Pairs("x-before", "yes")
	failure := &pb.Failure{
		Code: int32(codes.DataLoss), Message: "after headers", Moment: pb.Failure_AFTER_HEADERS,
	}
	for _, k := range allKinds {
		got := c.call(ctx, k, requests(&pb.Script{Headers: headers, Failure: failure, Responses: 1}, 1, 10)...)
		if err := expectStatus(k.name, codes.DataLoss, "after headers", got.err); err != nil {
			return err
		}
		if err := expectMetadata(k.name+": headers", headers, got.headers); err != nil {
			return err
		}
		if err := expect(k.name+": responses", 0, len(got.responses)); err != nil {
			return err
		}
	}
	return nil
}

// failureAfterMessages wants what came before the failure, and then the failure.
func failureAfterMessages(ctx context.Context, c *caller) error {
	script := &pb.Script{
		Responses: 5, ResponseBytes: 1000,
		Failure: &pb.Failure{
			Code: int32(codes.OutOfRange), Message: "after three",
			Moment: pb.Failure_AFTER_RESPONSES, AfterResponses: 3,
		},
	}
	got := c.call(ctx, serverKind, requests(script, 1, 10)...)
	if err := expectStatus("server stream", codes.OutOfRange, "after three", got.err); err != nil {
		return err
	}
	if err := expect("server stream: responses", 3, len(got.responses)); err != nil {
		return err
	}

	stream, err := c.interop.Bidi(ctx)
	if err != nil {
		return expectOK("opening the bidi stream", err)
	}
	for number, request := range requests(script, 3, 1000) {
		what := fmt.Sprintf("bidi: response %d", number)
		if err := stream.Send(request); err != nil {
			return expectOK(fmt.Sprintf("bidi: sending request %d", number), err)
		}
		response, err := stream.Recv()
		if err != nil {
			return expectOK(what, err)
		}
		if err := expectPattern(what, uint32(number), 1000, response.GetPayload()); err != nil {
			return err
		}
	}
	// Not half-closed: the handler ends it alone.
	_, err = stream.Recv()
	return expectStatus("bidi", codes.OutOfRange, "after three", err)
}

// failureDuringUpload fails while far more than a window is still to be sent.
func failureDuringUpload(ctx context.Context, c *caller) error {
	stream, err := c.interop.ClientStream(ctx)
	if err != nil {
		return expectOK("opening the stream", err)
	}
	script := &pb.Script{Failure: &pb.Failure{Code: int32(codes.PermissionDenied), Message: "no more"}}
	for _, request := range requests(script, 64, 65536) {
		// Where sending fails, receiving tells why.
		if stream.Send(request) != nil {
			break
		}
	}
	_, err = stream.CloseAndRecv()
	if err := expectStatus("the upload", codes.PermissionDenied, "no more", err); err != nil {
		return err
	}
	return c.usable(ctx)
}

func unimplementedMethod(ctx context.Context, c *caller) error {
	return c.unimplemented(ctx, "/tunnel.interop.v1.InteropService/Missing")
}

func unimplementedService(ctx context.Context, c *caller) error {
	return c.unimplemented(ctx, "/tunnel.interop.v1.MissingService/Unary")
}

// unimplemented calls what does not exist, once alone and once with a stream of requests.
func (c *caller) unimplemented(ctx context.Context, method string) error {
	got := c.callUnary(ctx, method, &pb.Request{Payload: pattern.Of(0, 10)})
	if err := expectCode("unary", codes.Unimplemented, got.err); err != nil {
		return err
	}
	missing := kind{"bidi", method, grpc.StreamDesc{ClientStreams: true, ServerStreams: true}}
	got = c.call(ctx, missing, requests(&pb.Script{}, 10, 1000)...)
	if err := expectCode("bidi", codes.Unimplemented, got.err); err != nil {
		return err
	}
	return c.usable(ctx)
}
