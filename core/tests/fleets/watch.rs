//! What an operator sees of the objects: a list, in one portion or in two, then each change.

use std::collections::VecDeque;
use std::sync::Arc;

use streamsession_core::object::Scope;
use streamsession_core::scheduler::{self, Digest};

use crate::api::{Line, Name};
use crate::operator::Watch;
use crate::world::{Event, World};

impl World {
    pub fn schedule_watches(&mut self) {
        for number in 0..self.operators.len() {
            let lines = self.api.log.len();
            let operator = &mut self.operators[number];
            if operator.sees_more(lines) && !operator.is_watching {
                operator.is_watching = true;
                let incarnation = operator.incarnation;
                let rng = &mut self.watch_rng[number];
                let delay =
                    if rng.below(20) == 0 { rng.between(1, 1_500) } else { rng.between(1, 25) };
                self.schedule(self.now_ms + delay, Event::Watch(number, incarnation));
            }
        }
    }

    /// The watch of an operator shows the next thing.
    pub fn watch(&mut self, number: usize) {
        let operator = &mut self.operators[number];
        if operator.stalled_until_ms > self.now_ms {
            let (at, incarnation) = (operator.stalled_until_ms, operator.incarnation);
            self.schedule(at, Event::Watch(number, incarnation));
            return;
        }
        operator.is_watching = false;
        if operator.is_stopping {
            return;
        }
        match &mut operator.watch {
            Watch::MustList => self.begin_list(number),
            Watch::Lists(portions) => {
                if let Some(portion) = portions.pop_front() {
                    self.deliver_portion(number, portion);
                } else {
                    operator.watch = Watch::Follows;
                    self.notify(number, scheduler::Event::ListEnded(Scope::All));
                }
            }
            Watch::Follows => {
                let (name, digest) = self.api.log[operator.cursor].clone();
                operator.cursor += 1;
                self.deliver(number, name, digest);
            }
        }
        self.perform_commands(number);
    }

    /// A list shows what there is now, in one portion or in two. What happens while it is on its
    /// way comes after it.
    fn begin_list(&mut self, number: usize) {
        let digests = self.api.objects.iter();
        let mut list: Vec<_> =
            digests.map(|(name, object)| (*name, Some(Arc::new(object.digest())))).collect();
        self.trace.log(self.now_ms, || format!("op{number} lists {} objects", list.len()));
        self.notify(number, scheduler::Event::ListBegan(Scope::All));
        let mut rest = VecDeque::new();
        if self.scenario.has_partial_lists && !list.is_empty() {
            let first = self.watch_rng[number].below(u64::try_from(list.len()).unwrap());
            rest.push_back(list.split_off(usize::try_from(first).unwrap()));
            self.note("a list in two portions");
        }
        self.operators[number].cursor = self.api.log.len();
        self.operators[number].watch = Watch::Lists(rest);
        self.deliver_portion(number, list);
    }

    fn deliver_portion(&mut self, number: usize, portion: Vec<Line>) {
        for (name, digest) in portion {
            self.deliver(number, name, digest);
        }
    }

    fn deliver(&mut self, number: usize, name: Name, digest: Option<Arc<Digest>>) {
        let version = digest.as_ref().map(|digest| Arc::clone(&digest.version));
        self.trace.log(self.now_ms, || match version {
            Some(version) => format!("op{number} sees {name} at version {version}"),
            None => format!("op{number} sees that {name} is gone"),
        });
        let event = match digest {
            Some(digest) => scheduler::Event::Seen(name.key(), (*digest).clone()),
            None => scheduler::Event::Gone(name.key()),
        };
        self.notify(number, event);
    }
}
