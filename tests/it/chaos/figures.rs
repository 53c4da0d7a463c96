//! The figures of a campaign: what was done, and what came of it.

use std::fmt;
use std::time::Duration;

/// The figures of a campaign.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Processes that were started.
    pub processes: usize,
    /// Of these, those that were killed by SIGKILL.
    pub kills: usize,
    /// Of these, at a failpoint.
    pub at_failpoints: usize,
    /// Journals in the objects when a process had been killed.
    pub journals_left: usize,
    pub objects: usize,
    pub edits: usize,
    /// One for each edit that removes phones, one for each that adds some: what a service without
    /// faults would see, at most.
    pub calls_needed: usize,
    /// Signed calls that arrived.
    pub calls: usize,
    /// Of these, those that were not answered with success.
    pub calls_failed: usize,
    /// Of these, those that were lost, or their answers.
    pub calls_lost: usize,
    /// Of these, those that arrived late.
    pub calls_late: usize,
    /// Of these, refusals of single instances.
    pub calls_refused: usize,
    /// Pauses before a refused phone was tried again, as far as they could be checked.
    pub pauses: usize,
    /// Checks of an object and its session, and of one that was Ready.
    pub checks: usize,
    pub ready: usize,
    pub violations: usize,
    /// Objects that wait for a person at the end.
    pub stuck: usize,
    /// The longest time that a wanted phone was out by the operator's own hand, once nothing went
    /// wrong any more.
    pub outage: Duration,
    /// How long it took then until all was settled.
    pub settling: Duration,
    pub took: Duration,
}

impl Figures {
    pub fn sum<'a>(campaigns: impl IntoIterator<Item = &'a Self>) -> Self {
        campaigns.into_iter().fold(Self::default(), |mut sum, campaign| {
            sum.add(campaign);
            sum
        })
    }

    /// How many calls may succeed.
    ///
    /// Each edit needs one for the phones that it removes and one for those that it adds
    /// ([`Figures::calls_needed`]); edits that overtake each other need fewer. Besides, a call that
    /// fails and a journal whose process was killed each cost two at most: the call is made again
    /// (one whose error may be one phone's fault as two halves), and if the spec has changed
    /// meanwhile, one more undoes what it may still do once it can't arrive any more. Refusals of a
    /// service that refuses what is done already are such calls too, and three of them cost a
    /// detach that finds out and an attach.
    pub fn successes_max(&self) -> usize {
        self.calls_needed + 2 * (self.calls_failed + self.journals_left)
    }

    fn add(&mut self, other: &Self) {
        self.processes += other.processes;
        self.kills += other.kills;
        self.at_failpoints += other.at_failpoints;
        self.journals_left += other.journals_left;
        self.objects += other.objects;
        self.edits += other.edits;
        self.calls_needed += other.calls_needed;
        self.calls += other.calls;
        self.calls_failed += other.calls_failed;
        self.calls_lost += other.calls_lost;
        self.calls_late += other.calls_late;
        self.calls_refused += other.calls_refused;
        self.pauses += other.pauses;
        self.checks += other.checks;
        self.ready += other.ready;
        self.violations += other.violations;
        self.stuck += other.stuck;
        self.outage = self.outage.max(other.outage);
        self.settling = self.settling.max(other.settling);
        self.took = self.took.max(other.took);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("kills", self.kills),
            ("  at a failpoint", self.at_failpoints),
            ("  journals that they left", self.journals_left),
            ("sessions", self.objects),
            ("edits", self.edits),
            ("calls", self.calls),
            ("  needed without faults, at most", self.calls_needed),
            ("  not answered with success", self.calls_failed),
            ("    lost, or the answer", self.calls_lost),
            ("    late", self.calls_late),
            ("    refused for single phones", self.calls_refused),
            ("pauses before another try, checked", self.pauses),
            ("checks of an object and its session", self.checks),
            ("  that was Ready", self.ready),
            ("leaks, false ledgers, false Readys", self.violations),
            ("sessions that wait for a person", self.stuck),
        ];
        for (what, count) in rows {
            writeln!(f, "{what:<36}{count:>8}")?;
        }
        for (what, time) in
            [("longest outage by our own hand", self.outage), ("longest settling", self.settling)]
        {
            writeln!(f, "{what:<36}{:>7.1}s", time.as_secs_f64())?;
        }
        write!(f, "{:<36}{:>7.0}s", "duration", self.took.as_secs_f64())
    }
}
