/* The lease protocol: two or three candidates, each with its client, and one Redis that can lose data.
 *
 * docs/protocol.md describes the protocol. A tag such as [Promise 4] names one of its promises. README.md in this
 * folder describes what is modelled, what is not, and the results.
 *
 * Each action is one indivisible step. Any process may take the next step or wait for any time: this is how sidecars
 * and clients freeze, and messages are late. Time is counted in ticks. All durations except the age of a call are
 * countdowns, so that the set of states is finite. A countdown ends at 0, unless its comment names another end.
 *
 * A macro sets a bound, adds or leaves out a part of the model, or breaks one rule (see `variants.py`). Without macros,
 * this is the correct protocol. A value that is no longer needed is set to 0, so that states that differ only in such
 * values are equal.
 */

#ifndef N
#define N 2        /* candidates, numbered from 1 */
#endif
#ifndef TTL
#define TTL 3      /* ttl of the key in Redis */
#endif
#ifndef MARGIN
#define MARGIN 1   /* a term ends this long before its key expires */
#endif
#ifndef GRANT
#define GRANT 1    /* grant_ttl */
#endif
#ifndef CALL
#define CALL 1     /* the limit of a call to Redis */
#endif
#ifndef LATE
#define LATE 1     /* maximum number of late requests of one task at one time */
#endif
#ifndef TERMS
#define TERMS 3    /* maximum number of terms in a run */
#endif
#ifndef DEMOTION
#define DEMOTION 0 /* ticks for which the old primary serves after a failover; needs FAULTS=1 and only failovers as faults */
#endif
#ifndef FAULTS
#define FAULTS 2   /* maximum number of faults in a run; delay, loss and pause do not count */
#endif

/* The types of faults: 1 on, 0 off */
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef RESTARTS
#define RESTARTS 1
#endif
#ifndef FAILOVERS
#define FAILOVERS 1
#endif
#ifndef STEPS
#define STEPS 1
#endif

#define may_fail(kind) (kind && faults < FAULTS)

#ifdef SHORT_GUARD
#define GUARD TTL
#else
#define GUARD (TTL + DEMOTION) /* failover guard: the time without a new term after a change of server */
#endif

#ifdef NO_MARGIN
#define LEAD TTL
#else
#define LEAD (TTL - MARGIN)  /* the duration of a belief, counted from before the call was sent */
#endif

#ifdef ONLY_PROMISE_2
#define assert_4(what) skip
#else
#define assert_4(what) assert(what)  /* [Promise 4] */
#endif

#define NOBODY 0
#define NONE   0
#define min(a, b) ((a) < (b) -> (a) : (b))
#define max(a, b) ((a) > (b) -> (a) : (b))

mtype = { acquire, renew, release, look };                           /* the calls */
mtype = { acquired, adopted, renewed, released, superseded, refused }; /* the outcomes; refused: for any reason */
#ifdef STEP_DOWN
mtype = { stepping_down };           /* outcome of an acquire or a renewal of a term that must end */
#endif

/* ---- Redis ---------------------------------------------------------------------------------------------------- */

typedef Data {       /* a server's data about the lease, which replication copies */
  byte holder;       /* KEY's value */
  byte left;         /* KEY's TTL */
  byte token;        /* the fence: the last token (while KEY exists, its value is this token's holder), */
  byte tenure;       /* the tenure of its term: an adopted term has a new one, */
  byte server;       /* the server that last acted on the lease, */
  byte changed_server; /* another server that was seen later, */
  byte wait          /* and the remaining time of the guard */
#ifdef STEP_DOWN
  ; byte step_down   /* the token of the term that an operator asked to end */
#endif
};

#ifdef STEP_DOWN
#define copy_step_down(from, to) to.step_down = from.step_down
#define steps_down               (redis.holder != NOBODY && redis.step_down == redis.token)
#define same_step_down           (replica.step_down == redis.step_down)
#else
#define copy_step_down(from, to) skip
#define steps_down               false
#define same_step_down           true
#endif

Data redis;          /* the primary */
Data replica;        /* while `lagging`: the other server's data at the stop of replication */
bit  lagging;        /* set from the first write that a failover would lose */
Data spare;          /* used only within one step */
#if DEMOTION
Data old;            /* the old primary, while it serves */
byte old_server;     /* its name */
bit  old_promoted;
byte old_serves;     /* the time for which it serves */
#endif
byte server = 1;     /* names the primary's run: run_id and replid, which each promotion and restart changes */
#ifdef RUN_IDS_RETURN
byte other = 2;      /* names the replica */
#endif
byte servers = 2;    /* the number of names in use */
bit  promoted;       /* the primary was a replica before */
byte young;          /* the time until the primary's uptime is one ttl */

byte newest;         /* the last token of any term: a model of the server's TIME, which outlives all data */
byte faults;
byte calm;           /* if set, no more faults; counts down to 1, when a task must lead */
bit  stepped;        /* the server's clock has stepped, by a tick: the whole margin */

/* ---- tasks ---------------------------------------------------------------------------------------------------- */

typedef Request {    /* a request whose sender gave up or died, and which may still execute */
  mtype kind;
  byte token;
  byte tenure;
#if DEMOTION
  bit  to_old;       /* its connection leads to the old primary */
#endif
  byte deadline
};

typedef Task {
  /* the sidecar: the facts of `Lease` */
  byte lead;         /* the time for which it leads: computed from the clock, not stored */
  byte token;        /* the token of its term, */
  byte tenure;       /* and its tenure, named after the acquire that won it */
  byte leaving;      /* the token of an ended term whose key must still be deleted */
  byte leaving_tenure;
  byte granted;      /* the time for which the client may act on the sidecar's answer */
#ifdef TENURE_PER_GIVE_UP
  byte next;         /* the tenure of the next acquire */
#endif
  mtype call;        /* the pending call: one at a time */
  byte  call_token;
  byte  call_tenure;
  byte  age;         /* the call's age, up to LEAD: deadlines count from before the send */
  mtype reply;       /* Redis's reply, on the way back */
  byte  reply_token;
  byte  reply_tenure;
  /* the network */
  byte  deadline;    /* the request is in transit, and may execute within this time on the server's clock */
#if DEMOTION
  bit   on_old;      /* the sidecar's connection leads to the old primary */
  bit   to_old;      /* the connection of the request in transit leads to the old primary */
#endif
  Request late[LATE];
  /* the client */
  byte answer;       /* a grant in transit to the client */
  byte belief;       /* the time for which the client acts */
#ifdef FENCE
  byte work;         /* the token of the client's work, which may be frozen */
#endif
  byte gone          /* the sidecar has died without a restart: counts down to 1, when its key must be free */
};

Task task[N + 1];

#ifdef FENCE
byte stored;         /* the token in Postgres's fence */
byte written;        /* the newest term that has written */
#endif

#ifdef STEP_DOWN
#define forget_step_down(data) data.step_down = 0 /* the request is for this term only */
#else
#define forget_step_down(data) skip
#endif

inline copy(from, to) {
  to.holder = from.holder; to.left = from.left; to.token = from.token; to.tenure = from.tenure;
  to.server = from.server; to.changed_server = from.changed_server; to.wait = from.wait;
  copy_step_down(from, to)
}

inline erase(data) {
  data.holder = NOBODY; data.left = 0; data.token = 0; data.tenure = 0;
  data.server = 0; data.changed_server = 0; data.wait = 0;
  forget_step_down(data)
}

inline move(from, to) { copy(from, to); erase(from) }

/* ---- the scripts: acquire.lua, renew.lua, release.lua ---------------------------------------------------------- */

#define ours(i) (redis.holder == i)

#ifdef RELEASE_WITHOUT_TOKEN
#define same_term(term) (true)
#else
#define same_term(term) (redis.token == term)     /* [Promise 6] */
#endif
#ifdef RELEASE_WITHOUT_TENURE
#define same_tenure(stretch) (true)
#else
#define same_tenure(stretch) (redis.tenure == stretch) /* an adopted term has a new tenure */
#endif

#ifdef FIRST_WRITE_UNGUARDED
#define changed (redis.server != server && redis.server != 0)
#else
#define changed (redis.server != server && (redis.server != 0 || promoted))
#endif

#ifdef GUARD_RESTARTS
#define seen_first true
#else
#define seen_first (redis.changed_server != server)
#endif

/* The failover guard: sets `wait` to the time for which no new term may start, from the first sight of the change. */
inline guard_wait() {
  if
#ifdef NO_GUARD
  :: true -> wait = 0
#else
  :: redis.server == server -> wait = 0
#ifdef FIRST_WRITE_UNGUARDED
  :: redis.server == 0 -> wait = young
#else
  :: redis.server == 0 && !promoted -> wait = young
#endif
#ifndef GUARD_RESTARTS
  :: changed && redis.changed_server == server -> wait = redis.wait
#endif
  :: changed && seen_first -> redis.changed_server = server; redis.wait = GUARD; wait = GUARD
#endif
  fi
}

inline vouch() {                     /* this server is now the last that acted on the lease */
  redis.server = server; redis.changed_server = 0; redis.wait = 0
}

#ifdef GUARD_ADOPTS
#define passes(i) (wait == 0 || redis.holder == i)
#else
#define passes(i) (wait == 0)        /* The guard also delays the key's holder: a failover may have lost its release. */
#endif

/* Execute a call for candidate i. Sets `outcome` and, if the caller needs it, `reply_term`: the token of the reply. */
inline execute(i, what, its_token, its_tenure) {
  outcome = refused;
  if
  :: what == acquire ->
       guard_wait();
       if
       :: redis.holder != NOBODY && redis.holder != i
       :: (redis.holder == NOBODY || redis.holder == i) && !passes(i)
#ifdef STEP_DOWN
       :: passes(i) && ours(i) && steps_down -> /* adopted only for a release: the key is not extended */
            redis.tenure = its_tenure; outcome = stepping_down; reply_term = redis.token
#endif
       :: passes(i) && ours(i) && !steps_down -> /* adopt the term */
            redis.tenure = its_tenure; redis.left = TTL; vouch(); outcome = adopted; reply_term = redis.token
       :: passes(i) && (redis.holder == NOBODY || redis.holder == i) && !ours(i) ->
#ifdef COUNTED_TOKENS
            redis.token++;
#else
            redis.token = newest + 1; /* max(last + 1, TIME) */
#endif
            assert(redis.token > newest); /* every later term has a larger token */
            newest = redis.token; reply_term = redis.token;
            redis.holder = i; redis.tenure = its_tenure; redis.left = TTL; vouch(); outcome = acquired;
            forget_step_down(redis)
       fi
  :: what == renew && ours(i) && redis.token == its_token && redis.tenure == its_tenure ->
       /* no guard: the renewal of a current term passes at once */
       vouch();
       if
#ifdef STEP_DOWN
#ifdef STEP_DOWN_NOT_EXTENDED
       :: steps_down -> outcome = stepping_down
#else
       :: steps_down -> redis.left = TTL; outcome = stepping_down
#endif
#endif
       :: !steps_down -> redis.left = TTL; outcome = renewed
       fi
  :: what == release && ours(i) && same_term(its_token) && same_tenure(its_tenure) ->
       redis.holder = NOBODY; redis.tenure = 0; redis.left = 0; outcome = released; forget_step_down(redis)
  :: else ->                         /* a look, or not our term: only the note of a change of server is written */
       guard_wait();
       if
       :: (what == look || what == release) && redis.holder == i -> outcome = superseded; reply_term = redis.token
       :: else
       fi
  fi;
  wait = 0
}

/* ---- the network ------------------------------------------------------------------------------------------------ */

byte names[9], names_given;
byte wait, reply_term, k, n;               /* used within one step; 0 between steps */
mtype outcome;

/* By symmetry the first term belongs to candidate 1. After TERMS terms no acquire of a free key executes. */
#define may_begin(i) (newest < TERMS && (newest > 0 || i == 1))
#if DEMOTION
#define may_execute(i, call, it) (call != acquire || (it.to_old -> old.holder : redis.holder) != NOBODY || may_begin(i))
#else
#define may_execute(i, call, it) (call != acquire || redis.holder != NOBODY || may_begin(i))
#endif

/* `name_tenure` picks an unused tenure. lease.py makes tenures from a boot id and a counter; the model reuses a few. */
#if LATE == 2
#define late_named(i, n) (task[i].late[0].tenure == n || task[i].late[1].tenure == n)
#else
#define late_named(i, n) (task[i].late[0].tenure == n)
#endif
#if DEMOTION
#define old_named(i, n) (old.holder == i && old.tenure == n)
#else
#define old_named(i, n) (false)
#endif
#define stored_named(i, n) ((redis.holder == i && redis.tenure == n) || (replica.holder == i && replica.tenure == n) || \
                            old_named(i, n))
#define named(i, n) (stored_named(i, n) || late_named(i, n) || task[i].tenure == n || task[i].leaving_tenure == n)

inline name_tenure(i, it) {
  n = 1;
  do
  :: named(i, n) -> n++
  :: else -> break
  od;
  it = n; n = 0
}

/* Only the equality of tenures matters: rename them in a fixed order. */
inline rename(tenure_of) {
  if
  :: tenure_of == 0
  :: tenure_of != 0 && names[tenure_of] != 0 -> tenure_of = names[tenure_of]
  :: tenure_of != 0 && names[tenure_of] == 0 -> names_given++; names[tenure_of] = names_given; tenure_of = names_given
  fi
}

inline tidy(i) {
  if
  :: redis.holder == i -> rename(redis.tenure)
  :: else
  fi;
  if
  :: replica.holder == i -> rename(replica.tenure)
  :: else
  fi;
#if DEMOTION
  if
  :: old.holder == i -> rename(old.tenure)
  :: else
  fi;
#endif
  rename(task[i].tenure); rename(task[i].leaving_tenure); rename(task[i].call_tenure); rename(task[i].reply_tenure);
  rename(task[i].late[0].tenure);
#if LATE == 2
  rename(task[i].late[1].tenure);
#endif
#ifdef TENURE_PER_GIVE_UP
  rename(task[i].next);
#endif
  for (n : 1 .. 8) { names[n] = 0 };
  n = 0; names_given = 0
}

#ifdef TENURE_PER_GIVE_UP
#define next_tenure(i) name_tenure(i, task[i].next)
#else
#define next_tenure(i) skip
#endif

/* Between two swaps, the variables of Redis have the values of the old primary. */
#if DEMOTION
inline swap_if(leads_there) {
  if
  :: leads_there ->
       copy(redis, spare); copy(old, redis); move(spare, old);
       k = server; server = old_server; old_server = k;
       k = promoted; promoted = old_promoted; old_promoted = k; k = 0
  :: else
  fi
}
#define swap_for(i) swap_if(task[i].to_old)
#define swap_for_late(i, j) swap_if(task[i].late[j].to_old)
#define from_old(it) (it.to_old -> 1 : 0)
#else
#define swap_for(i) skip
#define swap_for_late(i, j) skip
#define from_old(it) 0
#endif

inline on_its_way(i) {
  swap_for(i);
  execute(i, task[i].call, task[i].call_token, task[i].call_tenure);
  task[i].reply_tenure = (outcome == superseded -> redis.tenure : 0);
  if
  :: from_old(task[i]) -> printf("%d: the OLD PRIMARY executes ", i)
  :: else -> printf("%d: Redis executes ", i)
  fi;
  printf("%e (term %d): %e (term %d)\n", task[i].call, task[i].call_token, outcome, reply_term);
  task[i].reply = outcome; task[i].reply_token = reply_term; task[i].deadline = 0;
  swap_for(i);
  task[i].age = (outcome == refused -> 0 : task[i].age);
  outcome = 0; reply_term = 0;
  tidy(i)
}

inline late_on_its_way(i, j) {
  swap_for_late(i, j);
  execute(i, task[i].late[j].kind, task[i].late[j].token, task[i].late[j].tenure);
  if
  :: from_old(task[i].late[j]) -> printf("%d: the OLD PRIMARY executes the LATE ", i)
  :: else -> printf("%d: Redis executes the LATE ", i)
  fi;
  printf("%e (term %d): ", task[i].late[j].kind, task[i].late[j].token);
  printf("%e (term %d)\n", outcome, reply_term);
  swap_for_late(i, j);
  forget_late(i, j);
  outcome = 0; reply_term = 0;
  tidy(i)
}

inline forget_late(i, j) {
  task[i].late[j].kind = NONE; task[i].late[j].token = 0; task[i].late[j].tenure = 0; task[i].late[j].deadline = 0;
#if DEMOTION
  task[i].late[j].to_old = 0
#endif
}

inline stop_replication() {
  lagging = 1; copy(redis, replica);
  printf("replication STOPS: the replica gets no more writes\n")
}

#define in_step (replica.holder == redis.holder && replica.left == redis.left && \
                 replica.token == redis.token && replica.tenure == redis.tenure && replica.server == redis.server && \
                 same_step_down)

/* A stop of replication matters from the first write that it loses. */
inline unless_nothing_was_written() {
  if
  :: in_step -> lagging = 0; erase(replica)
  :: else
  fi
}

#define arrives(i)       (task[i].deadline > 0 && may_execute(i, task[i].call, task[i]))
#define arrives_late(i, j) (task[i].late[j].kind != NONE && may_execute(i, task[i].late[j].kind, task[i].late[j]))
#ifdef IN_STEP
#define may_stop_replication (false)
#else
#define may_stop_replication (may_fail(FAILOVERS) && !lagging)
#endif

proctype network(byte i) provided (!calm) {
  do
  :: d_step { arrives(i) -> on_its_way(i) }
  :: d_step { arrives_late(i, 0) -> late_on_its_way(i, 0) }
  :: d_step { may_stop_replication && arrives(i) ->
       stop_replication(); on_its_way(i); unless_nothing_was_written() }
  :: d_step { may_stop_replication && arrives_late(i, 0) ->
       stop_replication(); late_on_its_way(i, 0); unless_nothing_was_written() }
#if LATE == 2
  :: d_step { arrives_late(i, 1) -> late_on_its_way(i, 1) }
  :: d_step { may_stop_replication && arrives_late(i, 1) ->
       stop_replication(); late_on_its_way(i, 1); unless_nothing_was_written() }
#endif
  od
}

/* A pending request may still execute after its sender gave up. At most LATE such requests of a task are kept. */
#if LATE == 2
#define slot(i)  (task[i].late[0].kind == NONE -> 0 : 1)
#define crowded(i) (task[i].late[0].kind != NONE && task[i].late[1].kind != NONE)
#define late_acquire(i) (task[i].late[0].kind == acquire || task[i].late[1].kind == acquire)
#else
#define slot(i) 0
#define crowded(i) (task[i].late[0].kind != NONE)
#define late_acquire(i) (task[i].late[0].kind == acquire)
#endif

#ifdef NONE_LATE
#define may_come_late(i) (false)
#else
#define may_come_late(i) (task[i].deadline > 0 && task[i].call != look) /* a look does not change the lease */
#endif

inline becomes_late(i) {
  n = slot(i);
  task[i].late[n].kind = task[i].call; task[i].late[n].token = task[i].call_token;
  task[i].late[n].tenure = task[i].call_tenure; task[i].late[n].deadline = task[i].deadline;
#if DEMOTION
  task[i].late[n].to_old = task[i].to_old;
#endif
  n = 0
}

/* ---- the sidecar: lease.py -------------------------------------------------------------------------------------- */

inline forget_call(i) {
  task[i].call = NONE; task[i].call_token = 0; task[i].call_tenure = 0; task[i].age = 0;
  task[i].reply = NONE; task[i].reply_token = 0; task[i].reply_tenure = 0; task[i].deadline = 0;
#if DEMOTION
  task[i].to_old = 0;
#endif
  tidy(i)
}

/* Each attempt has its own anchor, and its own deadline in the server's time. */
inline send(i, what, its_token, its_tenure) {
  task[i].call = what; task[i].call_token = its_token; task[i].call_tenure = its_tenure; task[i].deadline = CALL;
#if DEMOTION
  task[i].to_old = task[i].on_old;
#endif
  printf("%d: the sidecar sends %e (term %d)\n", i, what, its_token);
  tidy(i)
}

inline give_up(i) {
  printf("%d: the sidecar gives up its %e\n", i, task[i].call);
  forget_call(i)
}

inline leave(i) {
  task[i].leaving = task[i].token; task[i].leaving_tenure = task[i].tenure;
  task[i].lead = 0; task[i].token = 0; task[i].tenure = 0;
  next_tenure(i);
  tidy(i)
}

#ifdef LEAD_FROM_REPLY
#define believed(i) (LEAD)
#else
#define believed(i) (LEAD - task[i].age)   /* counted from before the call was sent */
#endif

#ifdef STEP_DOWN
#define gets_step_down(i) (task[i].reply == stepping_down)
#else
#define gets_step_down(i) (false)
#endif

#define won(i) (task[i].reply == acquired || task[i].reply == adopted)

#ifdef RELEASE_BEFORE_STOP
#define may_leave(i) (true)
#else
#define may_leave(i) (task[i].granted == 0) /* [Promise 4] the client has resigned, or its grant has ended */
#endif

#if N == 2
#define nobody_else_believes(i) (task[3 - i].belief == 0)
#else
#define nobody_else_believes(i) \
  ((i == 1 || task[1].belief == 0) && (i == 2 || task[2].belief == 0) && (i == 3 || task[3].belief == 0))
#endif

#ifdef NO_FENCE
#define accepts(token) (true)
#else
#define accepts(token) (token >= stored)
#endif

#if DEMOTION
#define may_find(i) (redis.holder == i || old.holder == i || late_acquire(i))
#else
#define may_find(i) (redis.holder == i || late_acquire(i))
#endif

#if DEMOTION && !defined(ACQUIRE_UNASKED)
#define may_acquire(i) (!task[i].on_old) /* the sentinels are asked before each acquire */
#else
#define may_acquire(i) (true)
#endif

#define waits(i) (task[i].gone == 0 && task[i].call != NONE && task[i].reply != refused)
#define idle(i)  (task[i].gone == 0 && task[i].call == NONE)
#define leads(i) (task[i].gone == 0 && task[i].lead > 0)

proctype sidecar(byte i) provided (!calm) {
  do
#if DEMOTION
  :: d_step { task[i].on_old -> task[i].on_old = 0; /* the sentinels name another primary, or the connection ended */
       printf("%d: the sidecar turns to the new primary\n", i) }
#endif
  :: d_step { idle(i) && task[i].lead == 0 && task[i].leaving == NONE && may_acquire(i) ->
#ifdef TENURE_PER_GIVE_UP
       send(i, acquire, 0, task[i].next) }
#else
       name_tenure(i, task[i].call_tenure); send(i, acquire, 0, task[i].call_tenure) }
#endif
  :: d_step { idle(i) && task[i].lead > 0 -> send(i, renew, task[i].token, task[i].tenure);
       task[i].deadline = min(CALL, task[i].lead) }
  :: d_step { idle(i) && task[i].leaving != NONE && may_leave(i) ->
       assert_4(task[i].belief == 0 && task[i].answer == 0);
       send(i, release, task[i].leaving, task[i].leaving_tenure) }
  /* a look checks whether the key is still ours; a look that can find nothing is left out */
  :: d_step { idle(i) && task[i].lead == 0 && task[i].leaving == NONE && may_find(i) ->
       send(i, look, 0, 0) }

  /* the results of a call */
  :: d_step { task[i].gone == 0 && won(i) && believed(i) > 0 ->
       task[i].lead = believed(i); task[i].token = task[i].reply_token; task[i].tenure = task[i].call_tenure;
       printf("%d: the sidecar receives %e and leads term %d for %d\n", i, task[i].reply, task[i].token, task[i].lead);
       forget_call(i) }
  :: d_step { task[i].gone == 0 && won(i) -> /* no client asks any more, or the term is too short */
       task[i].leaving = task[i].reply_token; task[i].leaving_tenure = task[i].call_tenure; next_tenure(i);
       printf("%d: the sidecar receives %e, and gives term %d back\n", i, task[i].reply, task[i].leaving);
       forget_call(i) }
  :: d_step { task[i].gone == 0 && task[i].reply == renewed ->
       if
       :: task[i].token == task[i].call_token -> task[i].lead = max(task[i].lead, believed(i))
       :: else                       /* the term was given up, or ended, meanwhile */
       fi;
       printf("%d: the sidecar receives %e and leads for %d\n", i, task[i].reply, task[i].lead);
       forget_call(i) }
#ifdef STEP_DOWN
  :: d_step { task[i].gone == 0 && task[i].reply == stepping_down -> /* stop leading, and wait for the client */
       printf("%d: the sidecar receives %e in reply to %e\n", i, task[i].reply, task[i].call);
#ifdef STEP_DOWN_AT_ONCE
       task[i].granted = 0;
#endif
       if
       :: task[i].call == acquire ->
            task[i].leaving = task[i].reply_token; task[i].leaving_tenure = task[i].call_tenure; next_tenure(i)
       :: task[i].call == renew && task[i].token == task[i].call_token -> leave(i)
       :: else                       /* the term was given up, or ended, meanwhile */
       fi;
       forget_call(i) }
#endif
  :: d_step { task[i].gone == 0 && task[i].reply != NONE && !won(i) && task[i].reply != renewed &&
              !gets_step_down(i) ->
       if
       :: task[i].call == renew && task[i].token == task[i].call_token ->
            task[i].lead = 0; task[i].token = 0; task[i].tenure = 0
       :: task[i].reply == superseded -> /* reply to a look or release: another acquire of this sidecar executed */
            task[i].leaving = task[i].reply_token; task[i].leaving_tenure = task[i].reply_tenure; next_tenure(i)
       :: task[i].call == release && task[i].reply != superseded -> task[i].leaving = NONE; task[i].leaving_tenure = 0
       :: else
       fi;
       printf("%d: the sidecar receives %e\n", i, task[i].reply);
       forget_call(i) }
  /* the call's limit has passed, or the connection broke: the reply or the request is lost, or the request is late */
  :: d_step { waits(i) && (!may_come_late(i) || crowded(i)) -> give_up(i) }
  :: d_step { waits(i) && may_come_late(i) -> becomes_late(i); give_up(i) }

  /* the client is silent, or the sidecar got SIGTERM */
  :: d_step { leads(i) && may_leave(i) ->
       printf("%d: the sidecar gives up term %d\n", i, task[i].token);
       leave(i) }
  od
}

/* ---- the client ------------------------------------------------------------------------------------------------- */

proctype client(byte i) provided (!calm) {
  do
  :: d_step { leads(i) && task[i].answer == 0 -> /* a grant ends no later than the term */
       task[i].answer = min(task[i].lead, GRANT);
       task[i].granted = max(task[i].granted, task[i].answer);
#ifdef FENCE
       task[i].work = task[i].token;
#endif
       printf("%d: the client asks; granted for %d\n", i, task[i].answer) }
  :: d_step { task[i].answer > 0 ->
       task[i].belief = task[i].answer; task[i].answer = 0;
       printf("%d: the CLIENT BELIEVES for %d\n", i, task[i].belief);
       assert(nobody_else_believes(i)) }
  :: d_step { task[i].gone == 0 && task[i].granted > 0 && (task[i].belief > 0 || task[i].answer > 0) ->
       task[i].belief = 0; task[i].answer = 0; task[i].granted = 0;
       if
       :: task[i].lead > 0 -> leave(i)
       :: else
       fi;
       printf("%d: the client has stopped its work, and resigns\n", i) }
#ifdef FENCE
  :: d_step { task[i].work > 0 && accepts(task[i].work) -> /* [Promise 1] while the client believes, or long after */
       printf("%d: the client WRITES under term %d\n", i, task[i].work);
       assert(task[i].work >= written);
       stored = task[i].work; written = max(written, task[i].work) }
#endif
  od
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

#define less(timer) timer = ((timer) > 0 -> (timer) - 1 : 0)

inline server_time_passes(data) {
  if
  :: data.left == 1 -> data.holder = NOBODY; data.tenure = 0; data.left = 0; forget_step_down(data)
  :: data.left > 1 -> data.left--
  :: else
  fi;
  less(data.wait)
}

/* After its deadline a request does nothing, as if it were lost. */
#ifndef NO_DEADLINE
#define has_deadline(call) (true)
#else
#define has_deadline(call) (call != NO_DEADLINE)
#endif

/* The age of a call above which a larger age changes nothing. */
#define age_limit(i) (task[i].call == release -> CALL : (task[i].call == acquire || task[i].call == renew -> LEAD : 0))

inline requests_age(i) {
  if
  :: has_deadline(task[i].call) -> less(task[i].deadline)
  :: else
  fi;
  for (n : 0 .. LATE - 1) {
    if
    :: !has_deadline(task[i].late[n].kind)
    :: has_deadline(task[i].late[n].kind) && task[i].late[n].deadline > 1 -> task[i].late[n].deadline--
    :: has_deadline(task[i].late[n].kind) && task[i].late[n].deadline <= 1 -> forget_late(i, n)
    fi
  };
  n = 0;
  tidy(i)
}

#ifdef LIVENESS
#ifndef CALM
#define CALM (TTL + 2 + STEPS * MARGIN)
#endif

inline execute_at_once(i, what, its_token, its_tenure) {
  execute(i, what, its_token, its_tenure);
  printf("%d: Redis executes %e: %e\n", i, what, outcome)
}

/* The progress of a sidecar within a tick without faults. */
inline turn(i) {
  if
  :: task[i].call != NONE -> give_up(i)
  :: else
  fi;
  if
  :: task[i].gone > 0
  :: task[i].gone == 0 && task[i].leaving != NONE && may_leave(i) ->
       execute_at_once(i, release, task[i].leaving, task[i].leaving_tenure);
       task[i].leaving = NONE; task[i].leaving_tenure = 0
  :: task[i].gone == 0 && task[i].leaving != NONE && !may_leave(i)
  :: task[i].gone == 0 && task[i].leaving == NONE && task[i].lead > 0 ->
       execute_at_once(i, renew, task[i].token, task[i].tenure); task[i].lead = (outcome == renewed -> LEAD : 0)
  :: task[i].gone == 0 && task[i].leaving == NONE && task[i].lead == 0 ->
       name_tenure(i, task[i].tenure);
       execute_at_once(i, acquire, 0, task[i].tenure);
       task[i].lead = (outcome == acquired || outcome == adopted -> LEAD : 0);
       task[i].token = (task[i].lead > 0 -> reply_term : 0)
  fi;
  outcome = 0; reply_term = 0
}
#endif

#if DEMOTION
/* The old primary is a replica now: it refuses every call. */
inline demote() {
  erase(old); old_server = 0; old_promoted = 0;
  for (k : 1 .. N) {
    task[k].on_old = 0;
    task[k].deadline = (task[k].to_old -> 0 : task[k].deadline); task[k].to_old = 0;
    for (n : 0 .. LATE - 1) {
      if
      :: task[k].late[n].to_old -> forget_late(k, n)
      :: else
      fi
    };
    tidy(k)
  };
  k = 0; n = 0;
  printf("the old primary is demoted\n")
}
#endif

inline tick() {
  printf("tick\n");
  server_time_passes(redis);
  if
  :: lagging -> server_time_passes(replica)
  :: else
  fi;
#if DEMOTION
  if
  :: old_serves > 0 -> server_time_passes(old); old_serves--
  :: else
  fi;
#endif
  less(young);
  for (k : 1 .. N) {
    requests_age(k);
    task[k].age = (task[k].age < age_limit(k) -> task[k].age + 1 : task[k].age);
#ifndef STORED_FLAG
    less(task[k].lead);
#endif
    task[k].token = (task[k].lead > 0 -> task[k].token : 0);
    task[k].tenure = (task[k].lead > 0 -> task[k].tenure : 0); /* [Promise 5] no late answer revives the term */
    less(task[k].granted);
#ifndef GRANT_FROM_ANSWER
    less(task[k].answer);       /* the client counts from its request */
#endif
    less(task[k].belief);
    if
    :: task[k].gone > 1 -> task[k].gone--
    :: else
    fi;
    assert(task[k].gone != 1 || redis.holder != k) /* [Promise 3] a lost task's lease is free again */
  };
#if DEMOTION
  if
  :: old_server != 0 && old_serves == 0 -> demote()
  :: else
  fi;
#endif
  k = 0
}

proctype time() {
  do
  :: d_step { !calm -> tick() }
#ifdef LIVENESS
  :: d_step { !calm && newest > 0 && (task[1].gone == 0 || task[2].gone == 0) ->
       calm = CALM;
       printf("from here on there are no more faults\n") }
  :: d_step { calm > 1 ->
       tick();
       for (k : 1 .. N) { turn(k) };
       k = 0;
       calm--;
       if
       :: task[1].lead > 0 || task[2].lead > 0 -> calm = 1
       :: else
       fi;
       assert(calm != 1 || task[1].lead > 0 || task[2].lead > 0) /* [Promise 3] */ }
#endif
  od
}

/* ---- an operator ------------------------------------------------------------------------------------------------ */

#ifdef STEP_DOWN
proctype operator() provided (!calm) {
  do
  :: d_step { redis.holder != NOBODY && !steps_down ->
       redis.step_down = redis.token;
       printf("an operator asks for the step-down of term %d\n", redis.token) }
  od
}
#endif

/* ---- faults ----------------------------------------------------------------------------------------------------- */

inline sidecar_ends(i) {
  if
  :: may_come_late(i) -> becomes_late(i)
  :: else
  fi;
  task[i].lead = 0; task[i].token = 0; task[i].tenure = 0; task[i].leaving = NONE; task[i].leaving_tenure = 0;
  task[i].granted = 0;
  forget_call(i); next_tenure(i);
  faults++
}

/* A sidecar dies; its client lives on with its grant. */
proctype accident(byte i) provided (!calm) {
  do
  /* The sidecar restarts at once under the same id; a later restart would be safer. */
  :: d_step { may_fail(CRASHES) && newest > 0 && task[i].gone == 0 ->
       sidecar_ends(i);
#ifndef PREDECESSORS_GRANT_FORGOTTEN
       task[i].granted = GRANT;      /* [Promise 4] a grant of the previous process may still last */
#endif
       printf("%d: the sidecar is KILLED, and restarted\n", i) }
  :: d_step { may_fail(DEATHS) && newest > 0 && task[i].gone == 0 ->
       sidecar_ends(i);
       task[i].gone = TTL + CALL + 1 + (stepped -> MARGIN : 0);
       printf("%d: the sidecar is KILLED, without a restart\n", i) }
  od
}

/* A request is lost with its connection, which belongs to one server. A reply in transit still arrives. */
inline requests_are_lost() {
#ifdef REQUESTS_FOLLOW
  skip                               /* a proxy forwards the requests to the new primary */
#else
  for (k : 1 .. N) {
    task[k].deadline = 0;
    for (n : 0 .. LATE - 1) { forget_late(k, n) };
    tidy(k)
  };
  k = 0; n = 0
#endif
}

#if DEMOTION
/* The connections still lead to the old primary. */
inline requests_stay() {
  for (k : 1 .. N) {
    task[k].on_old = 1;
    task[k].to_old = (task[k].deadline > 0 -> 1 : 0);
    for (n : 0 .. LATE - 1) { task[k].late[n].to_old = (task[k].late[n].kind != NONE -> 1 : 0) }
  };
  k = 0; n = 0
}
#endif

proctype accident_of_redis() provided (!calm) {
  do
  :: d_step { may_fail(RESTARTS) && newest > 0 ->
       faults++;
       erase(redis); servers++; server = servers; promoted = 0; young = TTL;
       requests_are_lost();
       printf("Redis RESTARTS EMPTY\n") }

  :: d_step { may_fail(FAILOVERS) -> /* writes since the stop of replication are lost */
       faults++;
#if DEMOTION
       copy(redis, old); old_server = server; old_promoted = promoted; old_serves = DEMOTION;
#endif
       if
       :: lagging && faults < FAULTS -> /* now the old primary lags */
            move(redis, spare); move(replica, redis); move(spare, replica)
       :: lagging && faults == FAULTS -> move(replica, redis); lagging = 0
       :: else
       fi;
#ifdef RUN_IDS_RETURN
       k = server; server = other; other = k; k = 0;
#else
       servers++; server = servers;
#endif
       promoted = 1; young = 0;
#if DEMOTION
       requests_stay();
       printf("FAILOVER to the replica; the old primary continues to serve\n") }
#else
       requests_are_lost();
       printf("FAILOVER to the replica\n") }
#endif
  :: d_step { lagging && faults > 0 ->
       erase(replica); lagging = 0;
       printf("the replica catches up\n") }

  :: d_step { may_fail(STEPS) && !stepped -> /* [Promise 2] the step is not larger than the margin */
       faults++; stepped = 1;
       server_time_passes(redis);
       less(young);
       for (k : 1 .. N) { requests_age(k) };
       k = 0;
       printf("the server's clock steps FORWARD by a tick\n") }
  :: d_step { may_fail(STEPS) && !stepped ->
       faults++; stepped = 1;
       redis.left = (redis.left > 0 -> redis.left + 1 : 0);
       redis.wait = (redis.wait > 0 -> redis.wait + 1 : 0);
       young = (young > 0 -> young + 1 : 0);
       for (k : 1 .. N) {
         task[k].deadline = (task[k].deadline > 0 -> task[k].deadline + 1 : 0);
         task[k].gone = (task[k].gone > 1 -> task[k].gone + 1 : task[k].gone);
         for (n : 0 .. LATE - 1) {
           task[k].late[n].deadline = (task[k].late[n].deadline > 0 -> task[k].late[n].deadline + 1 : 0)
         }
       };
       k = 0; n = 0;
       printf("the server's clock steps BACK by a tick\n") }
  od
}

init {
  byte i;
  if
  :: redis.server = server           /* the lease has had a term before */
  :: true                            /* before its first term: there is no fence */
  fi;
  atomic {
    for (i : 1 .. N) {
      run network(i); run sidecar(i); run client(i); run accident(i)
    };
    i = 0;
#ifdef STEP_DOWN
    run operator();
#endif
    run accident_of_redis(); run time()
  }
}
