package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jhump/grpctunnel"

	"grpcpeer/internal/battery"
	"grpcpeer/internal/official"
	"grpcpeer/internal/settled"
)

// ofBattery is what the names of the battery's cases begin with.
const ofBattery = "battery/"

func callForward(o *options) error {
	return o.call(o.forward)
}

func callReverse(o *options) error {
	return o.call(o.reverse)
}

func batteryForward(o *options) error {
	return o.forward(func(tunnels source) error { return o.try(batteryCases(), tunnels) })
}

func batteryReverse(o *options) error {
	return o.reverse(func(tunnels source) error { return o.try(batteryCases(), tunnels) })
}

// known lists the names of all cases, in the order in which they run.
func known() []string {
	var names []string
	for _, each := range official.All() {
		names = append(names, each.Name)
	}
	return append(names, batteryCases()...)
}

func batteryCases() []string {
	var names []string
	for _, name := range battery.Names() {
		names = append(names, ofBattery+name)
	}
	return names
}

// call looks at what is asked for before it opens anything.
func (o *options) call(through func(func(source) error) error) error {
	selected := known()
	if o.cases != "all" {
		selected = strings.Split(o.cases, ",")
	}
	for _, name := range selected {
		if !slices.Contains(known(), name) {
			return misuse{fmt.Errorf("there is no case %q", name)}
		}
	}
	return through(func(tunnels source) error { return o.try(selected, tunnels) })
}

// try runs cases, and returns the failure to print last.
func (o *options) try(selected []string, tunnels source) error {
	t := trial{options: o, tunnels: tunnels}
	verdicts := verdicts{alone: len(selected) == 1}
	for _, name := range selected {
		verdicts.add(name, t.run(name))
	}
	t.close()
	return verdicts.sum()
}

// trial runs cases one after another.
type trial struct {
	*options
	tunnels source
	// tunnel is there as long as it is in use.
	tunnel grpctunnel.TunnelChannel
	// battery is there when the battery has run.
	battery map[string]error
}

// run tries one case. The battery is run as a whole, through one tunnel, and what
// came of it is told as its cases are asked for.
func (t *trial) run(name string) error {
	if test, of := strings.CutPrefix(name, ofBattery); of {
		if t.battery == nil {
			t.runBattery()
		}
		err, ran := t.battery[test]
		if !ran {
			return errors.New("the battery has not come to it")
		}
		return err
	}
	for _, each := range official.All() {
		if each.Name == name {
			return t.through(func(tunnel grpctunnel.TunnelChannel) error {
				return each.Run(settled.Channel(tunnel), t.timeout)
			})
		}
	}
	return misuse{fmt.Errorf("there is no case %q", name)}
}

func (t *trial) runBattery() {
	t.battery = map[string]error{}
	err := t.through(func(tunnel grpctunnel.TunnelChannel) error {
		results, err := battery.Run(settled.Channel(tunnel), t.timeout)
		for _, result := range results {
			t.battery[result.Name] = result.Err
		}
		return err
	})
	if err == nil {
		return
	}
	for _, name := range battery.Names() {
		t.battery[name] = err
	}
}

// through does something with the tunnel whose turn it is.
func (t *trial) through(do func(grpctunnel.TunnelChannel) error) error {
	if t.tunnel == nil {
		tunnel, err := t.tunnels.next()
		if err != nil {
			return err
		}
		t.tunnel = tunnel
	}
	if !t.oneTunnel {
		defer t.close()
	}
	return do(t.tunnel)
}

func (t *trial) close() {
	if t.tunnel != nil {
		t.tunnel.Close()
		t.tunnel = nil
	}
}

// verdicts prints what comes of each case, and of all of them.
type verdicts struct {
	// alone is set where there is one case, which needs no line of its own.
	alone  bool
	count  int
	failed []string
	last   error
}

func (v *verdicts) add(name string, err error) {
	v.count++
	verdict := "PASS"
	if err != nil {
		v.failed, v.last = append(v.failed, name), err
		verdict = "FAIL " + oneLine(err)
	}
	if !v.alone {
		fmt.Println("CASE", name, verdict)
	}
}

func (v *verdicts) sum() error {
	switch {
	case len(v.failed) == 0:
		fmt.Println("PASS")
		return nil
	case v.alone:
		return v.last
	default:
		return fmt.Errorf("%d of %d cases: %s", len(v.failed), v.count, strings.Join(v.failed, ", "))
	}
}
