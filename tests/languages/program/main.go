// Campaigns for each lease of the command line at the same time, with one client. `tests/languages/one_client.py` runs it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"example.org/lease/lease"
)

var mutex sync.Mutex

func say(format string, words ...any) {
	mutex.Lock()
	defer mutex.Unlock()
	fmt.Printf(format+"\n", words...)
}

func work(ctx context.Context, term *lease.Term) error {
	say("begin %s %d", term.Name, term.Token)
	defer say("end %s %d", term.Name, term.Token)
	if os.Getenv("WORK") != "spins" {
		<-ctx.Done()
		return nil
	}
	for term.Remaining() > 0 { // the work is the first to see the end of the term, as after a freeze of the process
	}
	return term.Check()
}

func main() {
	client := lease.New(os.Getenv("SIDECAR_URL"))
	client.StopBefore = 0
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var campaigns sync.WaitGroup
	for _, name := range os.Args[1:] {
		campaigns.Add(1)
		go func(name string) {
			defer campaigns.Done()
			if err := client.Run(ctx, name, work); err != nil && ctx.Err() == nil {
				say("error %s", err)
			}
		}(name)
	}
	campaigns.Wait()
}
