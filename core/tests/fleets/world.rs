//! The simulated world: one queue of events in virtual time, and who they happen to. Nothing here
//! depends on anything but the scenario.

use std::collections::BTreeMap;

use streamsession_core::reconcile::{Effect, Requeue, Response};
use streamsession_core::scheduler::run::Lesson;
use streamsession_core::scheduler::{self, Command, Facts, Run};
use streamsession_core::time::ServiceTime;
use streamsession_testkit::rng::Rng;
use streamsession_testkit::service::Service;

use crate::api::{Api, Name, Object};
use crate::calls::{KEYS, SIGNATURE_SECONDS, SentCall, identity};
use crate::checks::Failure;
use crate::effects::{InFlight, Reply};
use crate::figures::Stopwatch;
use crate::operator::{Operator, Running, STOP_PATIENCE_MS};
use crate::oracle::Oracle;
use crate::resync::ResyncProof;
use crate::scenario::{Action, Scenario};
use crate::trace::Trace;

/// By how much the clocks of two access points differ: that is a part of the margin.
const CLOCKS_DIFFER_SECONDS: i64 = 1;

/// The process and the reconcile that an answer is for.
#[derive(Clone, Copy, Debug)]
pub struct RunId {
    pub operator: usize,
    pub incarnation: u32,
    pub run: u64,
}

pub enum Event {
    Action(Action),
    Start(usize),
    Watch(usize, u32),
    Wake(usize, u32),
    /// A process that stops waits no longer.
    StopPatienceEnds(usize, u32),
    Arrive(Box<InFlight>),
    Respond(RunId, Box<Reply>),
}

impl Event {
    /// The process that it happens to; none if it is void without that process.
    fn process(&self) -> Option<(usize, u32)> {
        match self {
            Self::Watch(operator, incarnation)
            | Self::Wake(operator, incarnation)
            | Self::StopPatienceEnds(operator, incarnation) => Some((*operator, *incarnation)),
            Self::Respond(run_id, _) => Some((run_id.operator, run_id.incarnation)),
            Self::Action(_) | Self::Start(_) | Self::Arrive(_) => None,
        }
    }
}

pub struct World {
    pub scenario: Scenario,
    pub now_ms: u64,
    queue: BTreeMap<(u64, u64), Event>,
    numbers: u64,
    pub api: Api,
    pub service: Service,
    pub operators: Vec<Operator>,
    /// What may still take effect at the service.
    pub sent_calls: BTreeMap<u64, SentCall>,
    pub secrets: BTreeMap<u8, Option<u8>>,
    /// How often each session has ended: its id is another one each time.
    pub endings: Vec<u32>,
    pub backups: BTreeMap<Name, Object>,
    pub effects: BTreeMap<Name, u32>,
    rng: BTreeMap<Name, Rng>,
    pub watch_rng: Vec<Rng>,
    pub annotations: u64,
    pub oracle: Oracle,
    pub failure: Option<Failure>,
    /// Nothing goes wrong any more.
    pub faults_are_over: bool,
    /// Something changed that the checks look at.
    pub needs_check: bool,
    pub stopwatch: Stopwatch,
    pub resync_proof: ResyncProof,
    pub trace: Trace,
    pub events: usize,
    pub writes: usize,
    pub calls: usize,
    /// How often there happened what should happen in some of many fleets.
    pub notable: BTreeMap<&'static str, u64>,
}

impl World {
    pub fn new(scenario: Scenario, trace: Trace) -> Self {
        let operators = (0..scenario.operators).map(|_| Operator::new(&scenario)).collect();
        let watch_rng = (0..scenario.operators)
            .map(|number| Rng::new(scenario.seed, &format!("watch {number}")))
            .collect();
        let service = Service {
            size_limit: scenario.size_limit,
            ..Service::new(scenario.behaviour, SIGNATURE_SECONDS)
        };
        let mut world = Self {
            now_ms: 0,
            queue: BTreeMap::new(),
            numbers: 0,
            api: Api::default(),
            service,
            operators,
            sent_calls: BTreeMap::new(),
            secrets: BTreeMap::new(),
            endings: vec![0; usize::from(scenario.sessions)],
            backups: BTreeMap::new(),
            effects: BTreeMap::new(),
            rng: BTreeMap::new(),
            watch_rng,
            annotations: 0,
            oracle: Oracle::default(),
            failure: None,
            faults_are_over: false,
            needs_check: false,
            stopwatch: Stopwatch::default(),
            resync_proof: ResyncProof::Due,
            trace,
            events: 0,
            writes: 0,
            calls: 0,
            notable: BTreeMap::new(),
            scenario,
        };
        for session in 0..world.scenario.sessions {
            world.open_session(session);
        }
        for operator in 0..world.operators.len() {
            world.schedule(0, Event::Start(operator));
        }
        for (at, action) in world.scenario.actions.clone() {
            world.schedule(at, Event::Action(action));
        }
        world
    }

    pub fn schedule(&mut self, at_ms: u64, event: Event) {
        self.numbers += 1;
        self.queue.insert((at_ms.max(self.now_ms), self.numbers), event);
    }

    pub fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The service's second.
    pub fn second(&self) -> i64 {
        second(self.now_ms)
    }

    /// By how much the clock of the access point is ahead through which an operator's process goes.
    pub fn clock_ahead_ms(&self, number: usize) -> u64 {
        let incarnation = usize::try_from(self.operators[number].incarnation).unwrap();
        let is_other = (incarnation + number) % 2 == 1;
        if is_other { u64::try_from(self.clocks_differ_seconds()).unwrap() * 1_000 } else { 0 }
    }

    /// By how much the clocks of the service differ.
    pub fn clocks_differ_seconds(&self) -> i64 {
        if self.scenario.has_two_access_points { CLOCKS_DIFFER_SECONDS } else { 0 }
    }

    /// How long a message of an object takes.
    pub fn delay(&mut self, name: Name) -> u64 {
        let seed = self.scenario.seed;
        let rng = self.rng.entry(name).or_insert_with(|| Rng::new(seed, &name.to_string()));
        if rng.below(16) == 0 { rng.between(1, 400) } else { rng.between(1, 30) }
    }

    /// Runs until nothing is to come before `until_ms`, something has failed, or `events` are over.
    /// Says whether nothing is to come at all.
    pub fn run(&mut self, until_ms: u64, events: usize) -> bool {
        let end = self.events + events;
        self.schedule_watches();
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at > until_ms {
                self.numbers += 1;
                self.queue.insert((at, self.numbers), event);
                self.now_ms = until_ms;
                return false;
            }
            self.now_ms = at;
            self.handle(event);
            self.schedule_watches();
            if self.needs_check {
                self.needs_check = false;
                self.check();
            }
            if self.failure.is_some() {
                return false;
            }
            self.events += 1;
            if self.events > end {
                self.fail("livelock", format!("{events} events and no end"));
                return false;
            }
        }
        true
    }

    fn handle(&mut self, event: Event) {
        if let Some((operator, incarnation)) = event.process() {
            let process = &self.operators[operator];
            if process.incarnation != incarnation || !process.is_up {
                return;
            }
            if process.frozen_until_ms > self.now_ms {
                let at = process.frozen_until_ms;
                self.schedule(at, event);
                return;
            }
        }
        match event {
            Event::Action(action) => self.action(action),
            Event::Start(operator) => self.start_process(operator),
            Event::Watch(operator, _) => self.watch(operator),
            Event::Wake(operator, _) => self.perform_commands(operator),
            Event::StopPatienceEnds(operator, _) => self.exit(operator, "a stop that timed out"),
            Event::Arrive(in_flight) => self.arrive(*in_flight),
            Event::Respond(run_id, reply) => self.respond(run_id, *reply),
        }
    }

    fn start_process(&mut self, number: usize) {
        let now_ms = self.now_ms;
        let operator = &mut self.operators[number];
        operator.is_up = true;
        operator.started_ms = now_ms;
        self.trace.log(now_ms, || format!("op{number} starts"));
    }

    pub fn crash(&mut self, number: usize) {
        if self.operators[number].is_up {
            self.trace.log(self.now_ms, || format!("op{number} DIES"));
            self.end_process(number, &[50, 500, 3_000, 12_000, 40_000]);
        }
    }

    /// The process is told to stop, as by SIGTERM; a frozen one hears of it when it goes on.
    pub fn stop(&mut self, number: usize) {
        let operator = &mut self.operators[number];
        if !operator.is_up || operator.is_stopping {
            return;
        }
        if operator.frozen_until_ms > self.now_ms {
            let (at, operator) = (operator.frozen_until_ms, u8::try_from(number).unwrap());
            self.schedule(at, Event::Action(Action::Stop { operator }));
            return;
        }
        operator.is_stopping = true;
        let incarnation = operator.incarnation;
        if !operator.running.is_empty() {
            self.note("a stop with reconciles under way");
        }
        self.schedule(self.now_ms + STOP_PATIENCE_MS, Event::StopPatienceEnds(number, incarnation));
        self.notify(number, scheduler::Event::Stopping);
        self.perform_commands(number);
    }

    /// A process that was told to stop ends, and another one takes its place.
    fn exit(&mut self, number: usize, how: &'static str) {
        self.trace.log(self.now_ms, || format!("op{number} ends: {how}"));
        self.note(how);
        self.end_process(number, &[0, 50, 500, 3_000]);
    }

    fn end_process(&mut self, number: usize, pauses_ms: &[u64]) {
        self.operators[number].die(&self.scenario);
        let pause = self.watch_rng[number].pick(pauses_ms);
        self.schedule(self.now_ms + pause, Event::Start(number));
    }

    /// Something happened that should happen in some of many fleets.
    pub fn note(&mut self, what: &'static str) {
        *self.notable.entry(what).or_default() += 1;
    }

    /// Tells an operator's scheduler what happened.
    pub fn notify(&mut self, number: usize, event: scheduler::Event) {
        let operator = &mut self.operators[number];
        let now = operator.elapsed(self.now_ms);
        operator.scheduler.handle(event, now);
    }

    /// Performs the commands of an operator's scheduler.
    pub fn perform_commands(&mut self, number: usize) {
        while self.operators[number].is_up && self.operators[number].frozen_until_ms <= self.now_ms
        {
            let now_ms = self.now_ms;
            let operator = &mut self.operators[number];
            match operator.scheduler.next_command(operator.elapsed(now_ms)) {
                Command::Start(run) => self.start_run(number, run),
                Command::FindWanters(_) => self.note("who else wants an instance"),
                _ if operator.is_stopping && operator.scheduler.is_drained() => {
                    self.exit(number, "a stop that drained");
                    return;
                }
                Command::WakeAt(elapsed) => {
                    let at = operator.at_ms(elapsed);
                    if operator.wake_at_ms.is_none_or(|known| at < known || known <= now_ms) {
                        operator.wake_at_ms = Some(at);
                        let incarnation = operator.incarnation;
                        self.schedule(at, Event::Wake(number, incarnation));
                    }
                    return;
                }
                Command::Wait => return,
            }
        }
    }

    fn start_run(&mut self, number: usize, run: Box<Run>) {
        let operator = &mut self.operators[number];
        let run_id =
            RunId { operator: number, incarnation: operator.incarnation, run: run.number() };
        let running = Running { name: Name::of(run.key()), run, key: None, copy: None };
        operator.running.insert(run_id.run, running);
        self.step(run_id, Response::Started);
    }

    /// Goes on with a run until it waits for somebody.
    pub fn step(&mut self, run_id: RunId, mut response: Response) {
        // Another run that started meanwhile may have brought the process down.
        while self.operators[run_id.operator].running.contains_key(&run_id.run) {
            let (now_ms, nonce) = (self.now_ms, u128::from(self.next_number()));
            let operator = &mut self.operators[run_id.operator];
            let Some(running) = operator.running.get(&run_id.run) else { return };
            let known = running.run.endpoint(&response).is_some();
            let facts = Facts {
                now: operator.elapsed(now_ms),
                service: operator.clock(now_ms).filter(|_| known).map(ServiceTime),
                nonce,
                may_act: operator.fenced_until_ms <= now_ms,
            };
            let Operator { running, scheduler, .. } = operator;
            let Some(running) = running.get_mut(&run_id.run) else { return };
            let name = running.name;
            let effect = running.run.step(scheduler, response, facts);
            let lessons = running.run.take_lessons();
            self.trace.log(now_ms, || crate::trace::effect(run_id, name, &effect, &facts));
            for lesson in lessons {
                self.trace.log(now_ms, || format!("      {lesson:?}"));
                *self.notable.entry(lesson_name(&lesson)).or_default() += 1;
            }
            response = match effect {
                Effect::Done(requeue) => {
                    self.finish(run_id, requeue);
                    return;
                }
                Effect::Permit(_) => running.run.take_permit(scheduler, facts.now),
                Effect::Credentials => self.credentials(run_id, name),
                effect => {
                    self.send(run_id, name, effect, facts);
                    return;
                }
            };
        }
    }

    /// What the Secret of the namespace holds.
    pub fn key_of(&self, namespace: u8) -> Option<&'static str> {
        let held = self.secrets.get(&namespace).copied().unwrap_or(Some(0));
        held.map(|key| KEYS[usize::from(key)])
    }

    fn credentials(&mut self, run_id: RunId, name: Name) -> Response {
        let (now_ms, namespace) = (self.now_ms, name.namespace);
        let held = self.key_of(namespace).map(str::to_owned);
        let operator = &mut self.operators[run_id.operator];
        let secret = operator
            .cached_secret(namespace, now_ms)
            .or_else(|| held.inspect(|key| operator.cache_secret(namespace, key, now_ms)));
        let last_good = operator.last_good.get(&namespace).cloned();
        let Some(running) = operator.running.get_mut(&run_id.run) else { return Response::Failed };
        let deleting = running.copy.as_ref().is_some_and(|(_, view)| view.desired.deleting);
        // A namespace that is deleted may lose its Secret before its sessions.
        let Some(key) = secret.or(last_good.filter(|_| deleting)) else {
            return Response::Credentials(Err(format!("there is no Secret in n{namespace}")));
        };
        running.key = Some(key.clone());
        Response::Credentials(Ok(identity(&key)))
    }

    fn finish(&mut self, run_id: RunId, requeue: Requeue) {
        let operator = &mut self.operators[run_id.operator];
        let Some(running) = operator.running.remove(&run_id.run) else { return };
        self.notify(run_id.operator, scheduler::Event::Finished(running.run, requeue));
        self.perform_commands(run_id.operator);
    }
}

fn lesson_name(lesson: &Lesson) -> &'static str {
    match lesson {
        Lesson::Throttled { .. } => "a quota that was halved",
        Lesson::TooLarge { .. } => "a batch size that was halved",
        Lesson::ResyncFailed { .. } => "a resync that failed",
    }
}

pub fn second(now_ms: u64) -> i64 {
    1_000 + i64::try_from(now_ms / 1_000).unwrap()
}
