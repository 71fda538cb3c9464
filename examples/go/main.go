// Works while its task leads: `SIDECAR_URL=http://127.0.0.1:4040 go run . background_services`.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.org/lease/lease"
)

func say(format string, words ...any) {
	out := os.Stdout
	if path := os.Getenv("DIARY"); path != "" {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			panic(err)
		}
		defer file.Close()
		out = file
	}
	fmt.Fprintf(out, format+"\n", words...)
}

func work(ctx context.Context, term *lease.Term) error {
	say("begin %s %d %s", term.Holder, term.Token, term.Name)
	err := term.Check()
	for ; err == nil && ctx.Err() == nil; err = term.Check() {
		// write with term.Token: UPDATE ... WHERE token <= $1
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	time.Sleep(200 * time.Millisecond) // clean-up
	when := "late"
	if term.Remaining() > 0 {
		when = "in time"
	}
	say("end %s %d %s", term.Holder, term.Token, when)
	return err
}

func main() {
	url, name := os.Getenv("SIDECAR_URL"), "background_services"
	if url == "" {
		url = "http://127.0.0.1:4040"
	}
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := lease.New(url).Run(ctx, name, work); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
