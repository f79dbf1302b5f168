package battery

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fullstorydev/grpchan/grpchantesting"
	"github.com/fullstorydev/grpchan/inprocgrpc"
)

// child tells a process that it is to run the battery, which no test can do: the
// runner that it comes with must be the only one.
const child = "BATTERY_IN_A_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) == "" {
		os.Exit(m.Run())
	}
	channel := &inprocgrpc.Channel{}
	if os.Getenv(child) == "served" {
		grpchantesting.RegisterTestServiceServer(channel, &grpchantesting.TestServer{})
	} else {
		grpchantesting.RegisterTestServiceServer(channel, &grpchantesting.UnimplementedTestServiceServer{})
	}
	results, err := Run(channel, time.Minute)
	if err != nil {
		panic(err)
	}
	for _, result := range results {
		println(result.Name, result.Err == nil)
	}
}

func battery(t *testing.T, how string) []string {
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), child+"="+how)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return strings.Split(strings.TrimSpace(string(output)), "\n")
}

func TestTheTestsThatRunAreTheOnesThatAreListed(t *testing.T) {
	var expected []string
	for _, name := range Names() {
		expected = append(expected, name+" true")
	}
	if got := battery(t, "served"); !slices.Equal(got, expected) {
		t.Errorf("unexpected results: %q", got)
	}
}

func TestTestsCanFail(t *testing.T) {
	for _, line := range battery(t, "unimplemented") {
		if !strings.HasSuffix(line, " false") {
			t.Errorf("it passes where nothing is implemented: %s", line)
		}
	}
}
