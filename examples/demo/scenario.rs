//! The five steps. Each is checked against what is attached at the service itself, not against what
//! the operator reports.

use std::{collections::BTreeSet, time::Instant};

use gs_simulator::{Faults, Outcome};

use crate::{
    environment::{Environment, NAME, SESSION, SIGNATURE_VALIDITY, names},
    failure::Failure,
};

const SESSIONS: [&str; 2] = ["get", "streamsessions"];
const UNSETTLED: [&str; 5] =
    ["get", "streamsession", NAME, "-o", r#"jsonpath={.status.unsettledInstances}{"\n"}"#];
const JOURNAL: [&str; 5] =
    ["get", "streamsession", NAME, "-o", r#"jsonpath={.status.pendingCall}{"\n"}"#];
const READY: [&str; 5] = ["wait", "streamsession", NAME, "--for=condition=Ready", "--timeout=60s"];

pub(crate) async fn run(environment: &mut Environment) -> Result<(), Failure> {
    all_are_attached(environment).await?;
    an_edit_swaps_a_phone(environment).await?;
    a_phone_is_refused_and_corrected(environment).await?;
    no_phone_is_forgotten(environment).await?;
    a_deletion_detaches_all(environment).await
}

/// The first thing that a person does; `make dev` begins with it too.
pub(crate) async fn apply_the_examples(environment: &mut Environment) -> Result<(), Failure> {
    environment
        .show(&["apply", "-f", "examples/credentials.yaml", "-f", "examples/streamsession.yaml"])
        .await
}

async fn all_are_attached(environment: &mut Environment) -> Result<(), Failure> {
    environment.screen.heading("Step 1 of 5: a new StreamSession is attached");
    apply_the_examples(environment).await?;
    environment.show(&SESSIONS).await?;
    environment.show(&READY).await?;
    environment.show(&SESSIONS).await?;
    check_the_spec_is_attached(environment).await
}

async fn an_edit_swaps_a_phone(environment: &mut Environment) -> Result<(), Failure> {
    environment.screen.heading("Step 2 of 5: an edit replaces phone-3 by phone-4");
    patch_ids(environment, &["phone-1", "phone-2", "phone-4"]).await?;
    environment.show(&READY).await?;
    environment.show(&SESSIONS).await?;
    check_the_spec_is_attached(environment).await
}

async fn a_phone_is_refused_and_corrected(environment: &mut Environment) -> Result<(), Failure> {
    environment
        .screen
        .heading("Step 3 of 5: the service refuses a phone, and an edit corrects the spec");
    environment
        .screen
        .say("From now on the simulator refuses phone-broken, as if it were switched off.");
    environment.simulator.set_faults(Faults {
        fail_instances: ["phone-broken".to_owned()].into(),
        ..Faults::default()
    });
    patch_ids(environment, &["phone-1", "phone-2", "phone-4", "phone-broken"]).await?;
    let one_failed = "--for=jsonpath={.status.failedInstances}=1";
    environment.show(&["wait", "streamsession", NAME, one_failed, "--timeout=60s"]).await?;
    environment.show(&SESSIONS).await?;
    let message = r#"jsonpath={.status.conditions[?(@.type=="Ready")].message}{"\n"}"#;
    environment.show(&["get", "streamsession", NAME, "-o", message]).await?;
    environment.show(&UNSETTLED).await?;
    environment.check_members(&ids(&["phone-1", "phone-2", "phone-4"]))?;
    environment.screen.ok("the other three are attached: one bad phone does not delay them.");

    patch_ids(environment, &["phone-1", "phone-2", "phone-4"]).await?;
    environment.show(&READY).await?;
    environment.show(&SESSIONS).await?;
    environment.simulator.set_faults(Faults::default());
    check_the_spec_is_attached(environment).await
}

async fn no_phone_is_forgotten(environment: &mut Environment) -> Result<(), Failure> {
    environment.screen.heading(
        "Step 4 of 5: an answer is lost, the operator is killed, and no phone is forgotten",
    );
    environment.screen.say(
        "The simulator performs the next call and closes the connection without an answer. At \
         that moment the demo kills the operator.",
    );
    environment.simulator.set_faults(Faults { drop_answers: 1, ..Faults::default() });
    let patch = ids_patch(&["phone-1", "phone-2", "phone-4", "phone-5"]);
    let pid = environment
        .show_and_kill(&["patch", "streamsession", NAME, "--type=merge", "-p", &patch], "phone-5")
        .await?;
    environment.screen.command(format_args!("kill -KILL {pid}"));
    let lost = environment
        .simulator
        .calls()
        .iter()
        .filter(|call| call.outcome == Outcome::AppliedUnanswered)
        .count();
    environment.screen.say(format_args!(
        "{lost} call was performed and not answered. Attached at the service: {}.",
        names(&environment.simulator.members(SESSION))
    ));
    environment.screen.say("The operator can't ask the service: no call reads the membership.");
    show_the_journal(environment).await?;

    environment.screen.say("While no operator runs, phone-5 is removed from the spec.");
    patch_ids(environment, &["phone-1", "phone-2", "phone-4"]).await?;
    environment.screen.say(format_args!(
        "The operator starts again. The lost call may still arrive until its signature expires: \
         {} s and a margin here, 5 minutes at the real service.",
        SIGNATURE_VALIDITY.as_secs()
    ));
    let started = Instant::now();
    environment.start_operator().await?;
    environment.show(&SESSIONS).await?;
    environment.show(&READY).await?;
    environment.show(&SESSIONS).await?;
    environment.screen.say(format_args!(
        "The object was Ready {:.0} s after the start of the operator.",
        started.elapsed().as_secs_f64()
    ));
    check_the_spec_is_attached(environment).await
}

/// The journal, if the operator was killed before it noticed that the answer is lost. That is
/// nearly always so; else the unsettled record.
async fn show_the_journal(environment: &mut Environment) -> Result<(), Failure> {
    if environment.kubectl.run(&JOURNAL).await?.trim().is_empty() {
        environment.screen.say("But the status already says that the state of phone-5 is unknown:");
        environment.show(&UNSETTLED).await
    } else {
        environment
            .screen
            .say("But the operator wrote the call into the status before it made it:");
        environment.show(&JOURNAL).await
    }
}

async fn a_deletion_detaches_all(environment: &mut Environment) -> Result<(), Failure> {
    environment.screen.heading("Step 5 of 5: a deletion detaches all");
    environment.show(&["delete", "streamsession", NAME, "--timeout=60s"]).await?;
    environment.show(&SESSIONS).await?;
    environment.check_members(&BTreeSet::new())?;
    environment.screen.ok("nothing is attached at the service.");
    Ok(())
}

/// Edits the object as a person would, in one line.
async fn patch_ids(environment: &mut Environment, phones: &[&str]) -> Result<(), Failure> {
    environment
        .show(&["patch", "streamsession", NAME, "--type=merge", "-p", &ids_patch(phones)])
        .await
}

fn ids_patch(phones: &[&str]) -> String {
    serde_json::json!({"spec": {"slaveInstanceIds": phones}}).to_string()
}

/// The object is Ready: so exactly what the spec names must be attached, now.
async fn check_the_spec_is_attached(environment: &mut Environment) -> Result<(), Failure> {
    let spec = environment.spec().await?;
    environment.check_members(&spec)?;
    environment
        .screen
        .ok(format_args!("attached at the service, as in the spec: {}.", names(&spec)));
    Ok(())
}

fn ids(phones: &[&str]) -> BTreeSet<String> {
    phones.iter().map(|&phone| phone.to_owned()).collect()
}
