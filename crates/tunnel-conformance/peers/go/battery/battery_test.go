// Package battery runs the channel tests of grpchan on a plain connection to the
// address in the environment variable BATTERY_ADDRESS.
package battery

import (
	"os"
	"testing"

	"github.com/fullstorydev/grpchan/grpchantesting"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func TestBattery(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:"+os.Getenv("BATTERY_ADDRESS"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	grpchantesting.RunChannelTestCases(t, conn, true)
}
