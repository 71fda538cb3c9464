// Package lease is a client of the lease sidecar without dependencies. docs/http-contract.md has the rules.
//
// The client uses its own clock: a grant counts from before the request was sent, and only a valid answer extends it.
package lease

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	wait          = 10 * time.Second       // the wait of a held request while this process follows
	limit         = time.Second            // the timeout of an answer, in addition to the wait
	spacing       = 20 * time.Millisecond  // the minimum time between two requests
	tick          = 250 * time.Millisecond // the maximum time between two checks of the clock
	longestAnswer = 16 * 1024              // bytes
	longestGrant  = 60.0                   // seconds
	bootTime      = 7                      // CLOCK_BOOTTIME of Linux, which includes the time in suspend
)

// ErrOver reports that a term is over.
var ErrOver = errors.New("the term is over")

func now() time.Duration {
	var at syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, bootTime, uintptr(unsafe.Pointer(&at)), 0)
	return time.Duration(at.Nano())
}

// Term is one term of a lease.
type Term struct {
	Name       string // the lease's name
	Token      int64  // the fencing token: add it to every write
	Holder     string // the id of this task
	stopBefore time.Duration

	mutex                     sync.Mutex
	deadline, reserve, stopAt time.Duration
	ended                     bool
}

// Remaining is the time for which the client may still act; 0 once the term is over.
func (t *Term) Remaining() time.Duration {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.until(t.deadline)
}

// Check returns ErrOver if the term is over. Call it between two steps of the work.
func (t *Term) Check() error {
	if t.Remaining() <= 0 {
		return ErrOver
	}
	return nil
}

func (t *Term) workingTime() time.Duration {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.until(t.stopAt)
}

func (t *Term) until(moment time.Duration) time.Duration {
	if left := moment - now(); left > 0 && !t.ended {
		return left
	}
	return 0
}

// extend moves the deadline of the term; it returns false if the term is over, since no answer revives a term.
func (t *Term) extend(deadline time.Duration) bool {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.ended || (t.deadline != 0 && now() >= t.deadline) {
		return false
	}
	before := (deadline - now()) / 4
	if before > t.stopBefore {
		before = t.stopBefore
	}
	if before > t.reserve { // a later answer must not shrink the reserve
		t.reserve = before
	}
	t.deadline, t.stopAt = deadline, deadline-t.reserve
	return true
}

func (t *Term) end() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.ended = true
}

type answer struct {
	instanceID, version string
	token               int64 // 0 if the answer does not grant the lease
	deadline            time.Duration
}

// parse checks an answer to a GET /is-leader/NAME that was sent at sentAt; it returns nil for an invalid answer.
func parse(body []byte, name string, sentAt time.Duration) *answer {
	var reply struct {
		Lease      *string  `json:"lease"`
		IsLeader   *bool    `json:"is_leader"`
		InstanceID *string  `json:"instance_id"`
		Holder     *string  `json:"holder"`
		Token      *int64   `json:"token"`
		ExpiresIn  *float64 `json:"expires_in"`
		State      *string  `json:"state"`
		Version    *string  `json:"version"`
	}
	if json.Unmarshal(body, &reply) != nil {
		return nil
	}
	if reply.Lease == nil || *reply.Lease != name || reply.IsLeader == nil || reply.State == nil || reply.Version == nil ||
		reply.InstanceID == nil || *reply.InstanceID == "" {
		return nil
	}
	found := &answer{instanceID: *reply.InstanceID, version: *reply.Version}
	if !*reply.IsLeader {
		if reply.Token != nil || reply.ExpiresIn != nil {
			return nil
		}
		return found
	}
	if reply.Token == nil || *reply.Token <= 0 || reply.Holder == nil || *reply.Holder != *reply.InstanceID ||
		reply.ExpiresIn == nil || !(*reply.ExpiresIn > 0 && *reply.ExpiresIn <= longestGrant) {
		return nil
	}
	found.token = *reply.Token
	found.deadline = sentAt + time.Duration(*reply.ExpiresIn*float64(time.Second))
	return found
}

// Client sends requests to the sidecar at a URL.
type Client struct {
	// StopBefore is the time between the request to stop the work and the deadline; at most a quarter of the grant.
	StopBefore time.Duration

	url, name string
	http      *http.Client

	mutex   sync.Mutex
	sent    time.Duration
	running map[string]bool // names of the leases with an active Run
}

// New returns a client of the sidecar at url, such as http://127.0.0.1:4040.
func New(url string) *Client {
	word := make([]byte, 8)
	if _, err := rand.Read(word); err != nil {
		panic(err)
	}
	return &Client{
		StopBefore: 500 * time.Millisecond,
		url:        strings.TrimRight(url, "/"),
		running:    map[string]bool{},
		name:       hex.EncodeToString(word), // new at each start: an earlier process's late resign must not count
		http: &http.Client{
			Transport:     &http.Transport{Proxy: nil, DisableCompression: true, MaxIdleConnsPerHost: 2},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Run campaigns, and runs the work whenever this process leads, until ctx is cancelled.
//
// The work's context is cancelled at the end of the term. The client resigns after the work has ended. If the work returns
// before the end of its term, Run returns the work's error. If the work returns ErrOver after the end of its term, Run
// campaigns again. If ctx is cancelled, Run returns the error of ctx. A second Run for the same lease returns an error
// while the first Run is active.
func (c *Client) Run(ctx context.Context, name string, work func(context.Context, *Term) error) error {
	if !c.begin(name) {
		return fmt.Errorf("lease %s: Run is already active", name)
	}
	defer c.end(name)
	version, token, resigned := "", int64(0), false
	defer func() {
		if !resigned {
			c.resign(name, 0) // this process no longer wants the lease
		}
	}()
	for ctx.Err() == nil {
		reply := c.ask(ctx, name, version, token, wait, wait+limit)
		if reply == nil {
			version = ""
			sleep(ctx, 100*time.Millisecond+time.Duration(mathrand.Int63n(int64(400*time.Millisecond))))
			continue
		}
		version = reply.version
		if reply.token == 0 {
			continue
		}
		term := &Term{Name: name, Token: reply.token, Holder: reply.instanceID, stopBefore: c.StopBefore}
		term.extend(reply.deadline)
		if term.workingTime() <= 0 || ctx.Err() != nil {
			version = "" // the answer came too late
			continue
		}
		token = term.Token
		own, err := c.lead(ctx, term, version, work)
		resigned = own || ctx.Err() != nil
		if own {
			return err
		}
		version = ""
	}
	return ctx.Err()
}

func (c *Client) begin(name string) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.running[name] {
		return false
	}
	c.running[name] = true
	return true
}

func (c *Client) end(name string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.running, name)
}

// lead runs the work to its end; it returns true if the work returned before the end of the term.
func (c *Client) lead(ctx context.Context, term *Term, version string, work func(context.Context, *Term) error) (bool, error) {
	working, stop := context.WithCancel(ctx)
	asking, silence := context.WithCancel(ctx)
	done, over := make(chan struct{}), make(chan struct{})
	var err error
	go func() { err = work(working, term); close(done) }()
	go func() { c.prolong(asking, term, version); close(over) }()
	own := c.attend(ctx, term, done, over)
	stop()
	silence() // a request would campaign while the work ends
	<-done
	<-over // no request is pending
	own = own && (term.Remaining() > 0 || !errors.Is(err, ErrOver))
	term.end()
	resigned := term.Token
	if own || ctx.Err() != nil {
		resigned = 0
	}
	c.resign(term.Name, resigned)
	return own, err
}

// attend waits until the work returns or the term is over; it returns true if the work returned first. It checks the clock,
// because a timer ignores time in suspend.
func (c *Client) attend(ctx context.Context, term *Term, done, over <-chan struct{}) bool {
	for {
		left := term.workingTime()
		if left <= 0 {
			return false
		}
		if left > tick {
			left = tick
		}
		select {
		case <-done:
			return true
		case <-over:
			return false
		case <-ctx.Done():
			return false
		case <-time.After(left):
		}
	}
}

// prolong extends the term with each answer, and returns when the term is over.
func (c *Client) prolong(ctx context.Context, term *Term, version string) {
	for term.workingTime() > 0 && ctx.Err() == nil {
		hold := term.workingTime() / 3
		if hold > wait {
			hold = wait
		}
		within := hold + limit
		if within > 2*hold {
			within = 2 * hold
		}
		reply := c.ask(ctx, term.Name, version, term.Token, hold, within)
		if reply == nil {
			version = ""
			pause := term.workingTime() / 4
			if pause > 100*time.Millisecond {
				pause = 100 * time.Millisecond
			}
			sleep(ctx, pause)
			continue
		}
		if reply.token != term.Token || reply.instanceID != term.Holder || !term.extend(reply.deadline) {
			return
		}
		version = reply.version
	}
}

// slot returns the time at which the next request may be sent, and reserves it.
func (c *Client) slot() time.Duration {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.sent += spacing
	if at := now(); at > c.sent {
		c.sent = at
	}
	return c.sent
}

// ask sends one request; it returns nil if no valid answer came within the given time.
func (c *Client) ask(ctx context.Context, name, version string, token int64, hold, within time.Duration) *answer {
	sleep(ctx, c.slot()-now())
	query := url.Values{}
	if version != "" {
		query.Set("wait", strconv.FormatFloat(hold.Seconds(), 'f', 3, 64))
		query.Set("version", version)
	} else if within > limit {
		within = limit
	}
	if token != 0 {
		query.Set("token", strconv.FormatInt(token, 10))
	}
	sentAt := now()
	body, err := c.request(ctx, http.MethodGet, "/is-leader/"+url.PathEscape(name)+"?"+query.Encode(), within)
	if err != nil {
		return nil
	}
	return parse(body, name, sentAt)
}

// resign reports that the work has stopped. A missing sidecar is no error: the lease moves when the grant expires.
func (c *Client) resign(name string, token int64) {
	path := "/resign/" + url.PathEscape(name)
	if token != 0 {
		path += "?token=" + strconv.FormatInt(token, 10)
	}
	if _, err := c.request(context.Background(), http.MethodPost, path, limit); err != nil {
		_, _ = c.request(context.Background(), http.MethodPost, path, limit)
	}
}

func (c *Client) request(ctx context.Context, method, path string, within time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Lease-Client", c.name)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer+1))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK || len(body) > longestAnswer {
		return nil, fmt.Errorf("HTTP %d, %d bytes", response.StatusCode, len(body))
	}
	return body, nil
}

func sleep(ctx context.Context, duration time.Duration) {
	if duration <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(duration):
	}
}
