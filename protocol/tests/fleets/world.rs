//! The world: one queue of events in virtual time, and who they happen to. Nothing here depends on
//! anything but the plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use streamsession_protocol::claims::Standing;
use streamsession_protocol::step::{Effect, End, Memory, Moment, Response, Round};
use streamsession_protocol::time::ServiceTime;

use crate::agenda::Void;
use crate::api::{Api, Name, Object};
use crate::dice::Dice;
use crate::effects::{Flight, What};
use crate::operator::{Operator, Running, settings};
use crate::oracle::{Failure, Oracle};
use crate::plan::{Act, Plan};
use crate::service::{KEYS, Request, Service};
use crate::story::Story;

/// The process and the round that an answer is for.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub operator: usize,
    pub incarnation: u32,
    pub round: u64,
}

pub enum Event {
    Act(Act),
    Start(usize),
    Watch(usize, u32),
    Timer { operator: usize, incarnation: u32, name: Name, timer: u64 },
    Grant(usize, u32),
    Arrive(Box<Flight>),
    Respond(Ticket, Box<What>),
}

impl Event {
    /// The process that it happens to; none if it is void without that process.
    fn process(&self) -> Option<(usize, u32)> {
        match self {
            Self::Watch(operator, incarnation)
            | Self::Grant(operator, incarnation)
            | Self::Timer { operator, incarnation, .. } => Some((*operator, *incarnation)),
            Self::Respond(ticket, _) => Some((ticket.operator, ticket.incarnation)),
            Self::Act(_) | Self::Start(_) | Self::Arrive(_) => None,
        }
    }
}

pub struct World {
    pub plan: Plan,
    pub now_ms: u64,
    queue: BTreeMap<(u64, u64), Event>,
    tickets: u64,
    pub api: Api,
    pub service: Service,
    pub operators: Vec<Operator>,
    /// What may still take effect at the service.
    pub requests: BTreeMap<u64, Request>,
    pub secrets: BTreeMap<u8, Option<u8>>,
    /// How often each session has ended: its id is another one each time.
    pub endings: Vec<u32>,
    pub backups: BTreeMap<Name, Object>,
    pub effects: BTreeMap<Name, u32>,
    dice: BTreeMap<Name, Dice>,
    watch_dice: Vec<Dice>,
    pub asked: u64,
    pub oracle: Oracle,
    pub failure: Option<Failure>,
    /// Nothing goes wrong any more.
    pub is_calm: bool,
    /// Something changed that the checks look at.
    pub is_dirty: bool,
    pub story: Story,
    pub events: usize,
    pub writes: usize,
    pub calls: usize,
}

impl World {
    pub fn new(plan: Plan, story: Story) -> Self {
        let operators = (0..plan.operators).map(|_| Operator::new(plan.quota)).collect();
        let watch_dice = (0..plan.operators)
            .map(|number| Dice::new(plan.seed, &format!("watch {number}")))
            .collect();
        let service = Service::new(plan.add_present_ok, plan.remove_absent_ok);
        let mut world = Self {
            now_ms: 0,
            queue: BTreeMap::new(),
            tickets: 0,
            api: Api::default(),
            service,
            operators,
            requests: BTreeMap::new(),
            secrets: BTreeMap::new(),
            endings: vec![0; usize::from(plan.sessions)],
            backups: BTreeMap::new(),
            effects: BTreeMap::new(),
            dice: BTreeMap::new(),
            watch_dice,
            asked: 0,
            oracle: Oracle::default(),
            failure: None,
            is_calm: false,
            is_dirty: false,
            story,
            events: 0,
            writes: 0,
            calls: 0,
            plan,
        };
        for session in 0..world.plan.sessions {
            world.open_session(session);
        }
        for operator in 0..world.operators.len() {
            world.at(0, Event::Start(operator));
        }
        for (at, act) in world.plan.acts.clone() {
            world.at(at, Event::Act(act));
        }
        world
    }

    pub fn at(&mut self, at_ms: u64, event: Event) {
        self.tickets += 1;
        self.queue.insert((at_ms.max(self.now_ms), self.tickets), event);
    }

    pub fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// The service's second.
    pub fn second(&self) -> i64 {
        second(self.now_ms)
    }

    /// How long a way takes, for an object's messages.
    pub fn delay(&mut self, name: Name) -> u64 {
        let seed = self.plan.seed;
        let dice = self.dice.entry(name).or_insert_with(|| Dice::new(seed, &name.to_string()));
        if dice.below(16) == 0 { dice.between(1, 400) } else { dice.between(1, 30) }
    }

    /// Runs until nothing is to come before `until_ms`, something has failed, or `events` are over.
    /// Says whether nothing is to come at all.
    pub fn run(&mut self, until_ms: u64, events: usize) -> bool {
        let end = self.events + events;
        self.wake_watches();
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at > until_ms {
                self.tickets += 1;
                self.queue.insert((at, self.tickets), event);
                self.now_ms = until_ms;
                return false;
            }
            self.now_ms = at;
            self.happens(event);
            self.wake_watches();
            if self.is_dirty {
                self.is_dirty = false;
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

    fn happens(&mut self, event: Event) {
        if let Some((operator, incarnation)) = event.process() {
            let process = &self.operators[operator];
            if process.incarnation != incarnation || !process.is_up {
                return;
            }
            if process.frozen_until_ms > self.now_ms {
                let at = process.frozen_until_ms;
                self.at(at, event);
                return;
            }
        }
        match event {
            Event::Act(act) => self.act(act),
            Event::Start(operator) => self.start_process(operator),
            Event::Watch(operator, _) => self.watch(operator),
            Event::Timer { operator, name, timer, .. } => {
                if self.operators[operator].agenda.timer_counts(name, timer) {
                    self.operators[operator].agenda.due(name);
                    self.pump(operator);
                }
            }
            Event::Grant(operator, _) => self.pump(operator),
            Event::Arrive(flight) => self.arrive(*flight),
            Event::Respond(ticket, what) => self.respond(ticket, *what),
        }
    }

    fn start_process(&mut self, number: usize) {
        let now_ms = self.now_ms;
        let operator = &mut self.operators[number];
        operator.is_up = true;
        operator.started_ms = now_ms;
        operator.must_list = true;
        self.story.tell(now_ms, || format!("op{number} starts"));
    }

    pub fn crash(&mut self, number: usize) {
        if !self.operators[number].is_up {
            return;
        }
        self.story.tell(self.now_ms, || format!("op{number} DIES"));
        self.operators[number].die();
        let pause = self.watch_dice[number].pick(&[50, 500, 3_000, 12_000, 40_000]);
        self.at(self.now_ms + pause, Event::Start(number));
    }

    fn wake_watches(&mut self) {
        for number in 0..self.operators.len() {
            let lines = self.api.log.len();
            let operator = &mut self.operators[number];
            if operator.is_up
                && !operator.is_watching
                && (operator.cursor < lines || operator.must_list)
            {
                operator.is_watching = true;
                let incarnation = operator.incarnation;
                let dice = &mut self.watch_dice[number];
                let delay =
                    if dice.below(20) == 0 { dice.between(1, 1_500) } else { dice.between(1, 25) };
                self.at(self.now_ms + delay, Event::Watch(number, incarnation));
            }
        }
    }

    fn watch(&mut self, number: usize) {
        let operator = &mut self.operators[number];
        if operator.stalled_until_ms > self.now_ms {
            let (at, incarnation) = (operator.stalled_until_ms, operator.incarnation);
            self.at(at, Event::Watch(number, incarnation));
            return;
        }
        operator.is_watching = false;
        if std::mem::take(&mut operator.must_list) {
            operator.cursor = self.api.log.len();
            let list: BTreeMap<_, _> = self
                .api
                .objects
                .iter()
                .map(|(name, object)| (*name, Arc::new(object.digest())))
                .collect();
            self.story.tell(self.now_ms, || format!("op{number} lists {} objects", list.len()));
            for name in self.operators[number].agenda.names() {
                if !list.contains_key(&name) {
                    self.saw(number, name, None);
                }
            }
            for (name, digest) in list {
                self.saw(number, name, Some(digest));
            }
        } else {
            let (name, digest) = self.api.log[operator.cursor].clone();
            operator.cursor += 1;
            self.saw(number, name, digest);
        }
        self.pump(number);
    }

    fn saw(&mut self, number: usize, name: Name, digest: Option<Arc<crate::api::Digest>>) {
        let version = digest.as_ref().map(|digest| digest.version);
        self.story.tell(self.now_ms, || match version {
            Some(version) => format!("op{number} sees {name} at version {version}"),
            None => format!("op{number} sees that {name} is gone"),
        });
        let operator = &mut self.operators[number];
        let void = if let Some(digest) = digest {
            operator.agenda.saw(name, &digest)
        } else {
            operator.agenda.gone(name);
            Void::TimerAndPermit
        };
        if void != Void::Nothing {
            operator.agenda.cancel_timer(name);
        }
        if void == Void::TimerAndPermit {
            operator.cancel_wait(name);
        }
    }

    /// Starts what is due, and looks when somebody's turn comes.
    pub fn pump(&mut self, number: usize) {
        while self.operators[number].is_up && self.operators[number].frozen_until_ms <= self.now_ms
        {
            let now_ms = self.now_ms;
            let operator = &mut self.operators[number];
            if let Some((name, key, permit)) = operator.grant(now_ms) {
                if operator.agenda.may_start(name) {
                    self.start_round(number, name, Some((key, permit)));
                } else {
                    operator.unspent(Some((key, permit)));
                }
                continue;
            }
            let next =
                if operator.plain < self.plan.concurrency { operator.agenda.pop() } else { None };
            let Some(name) = next else { break };
            self.start_round(number, name, None);
        }
        let now_ms = self.now_ms;
        let operator = &mut self.operators[number];
        if let Some(at) = operator.next_grant_ms(now_ms).map(|at| at.max(now_ms + 1))
            && operator.is_up
            && operator.grant_at_ms.is_none_or(|known| at < known || known <= now_ms)
        {
            operator.grant_at_ms = Some(at);
            let incarnation = operator.incarnation;
            self.at(at, Event::Grant(number, incarnation));
        }
    }

    fn start_round(
        &mut self,
        number: usize,
        name: Name,
        permit: Option<(String, crate::queue::Permit)>,
    ) {
        let settings = settings(self.plan.batch_size_max);
        let operator = &mut self.operators[number];
        let (round, memory) = operator.agenda.started(name);
        let permitted = permit.is_some();
        operator.plain += usize::from(!permitted);
        let memory = memory.map_or_else(|| Memory::new(settings), |memory| *memory);
        let running = Running {
            name,
            round: Round::new(settings, memory, permitted),
            permitted,
            permit,
            key: None,
            copy: None,
            versions: Vec::new(),
            displaced: false,
        };
        operator.running.insert(round, running);
        let ticket = Ticket { operator: number, incarnation: operator.incarnation, round };
        self.go_on(ticket, Response::Started);
    }

    /// What a round is to know of the moment.
    pub fn moment(&mut self, ticket: Ticket, response: &Response) -> Moment {
        let nonce = u128::from(self.ticket());
        let operator = &mut self.operators[ticket.operator];
        let running = operator.running.get_mut(&ticket.round).unwrap();
        running.displaced = operator.agenda.claims.was_displaced(&running.name);
        let displaced = running.displaced;
        let operator = &self.operators[ticket.operator];
        let running = &operator.running[&ticket.round];
        let place = match response {
            Response::Object(Some(view)) => Some(view.place()),
            _ => running.round.place(),
        };
        Moment {
            service: place.as_ref().and_then(|_| operator.clock(self.now_ms)).map(ServiceTime),
            elapsed: std::time::Duration::from_millis(self.now_ms - operator.started_ms),
            nonce,
            standing: place.map_or(Standing::Alone, |place| {
                operator.agenda.claims.standing(&running.name, &place)
            }),
            displaced,
            may_act: operator.fenced_until_ms <= self.now_ms,
        }
    }

    /// Goes on with a round until it waits for somebody.
    pub fn go_on(&mut self, ticket: Ticket, mut response: Response) {
        // Another round that started meanwhile may have brought the process down.
        while self.operators[ticket.operator].running.contains_key(&ticket.round) {
            let moment = self.moment(ticket, &response);
            let Some(running) = self.operators[ticket.operator].running.get_mut(&ticket.round)
            else {
                return;
            };
            let name = running.name;
            let effect = running.round.step(response, &moment);
            self.story.tell(self.now_ms, || crate::story::effect(ticket, name, &effect, &moment));
            response = match effect {
                Effect::End(end) => {
                    self.finish(ticket, end);
                    return;
                }
                Effect::Permit => Response::Permit(self.take_permit(ticket)),
                Effect::Credentials => self.credentials(ticket, name),
                effect => {
                    self.send(ticket, name, effect, &moment);
                    return;
                }
            };
        }
    }

    fn take_permit(&mut self, ticket: Ticket) -> bool {
        let now_ms = self.now_ms;
        let operator = &mut self.operators[ticket.operator];
        let Some(mut running) = operator.running.remove(&ticket.round) else { return false };
        if let (None, Some(key)) = (&running.permit, &running.key) {
            running.permit = operator.try_take(key, now_ms).map(|permit| (key.clone(), permit));
        }
        let granted = running.permit.is_some();
        operator.running.insert(ticket.round, running);
        granted
    }

    fn credentials(&mut self, ticket: Ticket, name: Name) -> Response {
        let (now_ms, namespace) = (self.now_ms, name.namespace);
        let held = self
            .secrets
            .get(&namespace)
            .copied()
            .unwrap_or(Some(0))
            .map(|key| KEYS[usize::from(key)].to_owned());
        let operator = &mut self.operators[ticket.operator];
        let secret = operator
            .kept_secret(namespace, now_ms)
            .or_else(|| held.inspect(|key| operator.keep_secret(namespace, key, now_ms)));
        let last_good = operator.last_good.get(&namespace).cloned();
        let Some(running) = operator.running.get_mut(&ticket.round) else {
            return Response::Failed;
        };
        let deleting = running.copy.as_ref().is_some_and(|(_, view)| view.desired.deleting);
        // A namespace that is deleted may lose its Secret before its sessions.
        let Some(key) = secret.or(last_good.filter(|_| deleting)) else {
            return Response::Credentials(Err(format!("there is no Secret in n{namespace}")));
        };
        running.key = Some(key.clone());
        if running.permit.as_ref().is_some_and(|(account, _)| *account != key) {
            running.round.lose_permit();
            let permit = running.permit.take();
            operator.unspent(permit);
        }
        Response::Credentials(Ok(key))
    }

    fn finish(&mut self, ticket: Ticket, end: End) {
        let Ticket { operator: number, incarnation, round } = ticket;
        let operator = &mut self.operators[number];
        let Some(running) = operator.running.remove(&round) else { return };
        let Running { name, permitted, permit, key, versions, round: state, .. } = running;
        operator.plain -= usize::from(!permitted);
        operator.unspent(permit);
        let memory =
            (end != End::OnChange && end != End::Gone).then(|| Box::new(state.into_memory()));
        if operator.agenda.finished(name, round, memory, versions) {
            match (end, key) {
                (End::After(pause), _) => {
                    let timer = operator.agenda.new_timer(name);
                    let at =
                        self.now_ms + u64::try_from(pause.as_micros().div_ceil(1_000)).unwrap();
                    self.at(at, Event::Timer { operator: number, incarnation, name, timer });
                }
                (End::AwaitPermit(urgency), Some(key)) => operator.enqueue(&key, name, urgency),
                (End::AwaitPermit(_), None) => operator.agenda.due(name),
                (End::OnChange | End::Gone, _) => {}
            }
        }
        self.pump(number);
    }
}

pub fn second(now_ms: u64) -> i64 {
    1_000 + i64::try_from(now_ms / 1_000).unwrap()
}
