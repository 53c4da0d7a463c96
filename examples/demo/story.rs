//! The five steps. Each is checked against what the service itself holds, not against what the
//! operator says of it.

use std::{collections::BTreeSet, time::Instant};

use gs_simulator::{Faults, Outcome};

use crate::{
    failure::Failure,
    stage::{NAME, SESSION, SIGNATURE_VALIDITY, Stage, names},
};

const SESSIONS: [&str; 2] = ["get", "streamsessions"];
const READY: [&str; 5] = ["wait", "streamsession", NAME, "--for=condition=Ready", "--timeout=60s"];

pub(crate) async fn tell(stage: &mut Stage) -> Result<(), Failure> {
    from_nothing_to_attached(stage).await?;
    an_edit_swaps_a_phone(stage).await?;
    a_phone_is_refused_and_corrected(stage).await?;
    no_phone_is_forgotten(stage).await?;
    a_deletion_detaches_everything(stage).await
}

/// The first thing that people do, and all that the beginning of `make dev` is.
pub(crate) async fn apply_the_examples(stage: &mut Stage) -> Result<(), Failure> {
    stage
        .show(&["apply", "-f", "examples/credentials.yaml", "-f", "examples/streamsession.yaml"])
        .await
}

async fn from_nothing_to_attached(stage: &mut Stage) -> Result<(), Failure> {
    stage.screen.heading("Step 1 of 5: a session goes from nothing to all attached");
    apply_the_examples(stage).await?;
    stage.show(&SESSIONS).await?;
    stage.show(&READY).await?;
    stage.show(&SESSIONS).await?;
    as_the_spec_says(stage).await
}

async fn an_edit_swaps_a_phone(stage: &mut Stage) -> Result<(), Failure> {
    stage.screen.heading("Step 2 of 5: an edit swaps phone-3 for phone-4");
    want(stage, &["phone-1", "phone-2", "phone-4"]).await?;
    stage.show(&READY).await?;
    stage.show(&SESSIONS).await?;
    as_the_spec_says(stage).await
}

async fn a_phone_is_refused_and_corrected(stage: &mut Stage) -> Result<(), Failure> {
    stage.screen.heading("Step 3 of 5: the service refuses a phone, and someone corrects it");
    stage.screen.say("The simulator is told to refuse phone-broken, as the service would refuse one that is switched off.");
    stage.simulator.set_faults(Faults {
        fail_instances: ["phone-broken".to_owned()].into(),
        ..Faults::default()
    });
    want(stage, &["phone-1", "phone-2", "phone-4", "phone-broken"]).await?;
    stage
        .show(&[
            "wait",
            "streamsession",
            NAME,
            "--for=jsonpath={.status.failedInstances}=1",
            "--timeout=60s",
        ])
        .await?;
    stage.show(&SESSIONS).await?;
    stage
        .show(&[
            "get",
            "streamsession",
            NAME,
            "-o",
            r#"jsonpath={.status.conditions[?(@.type=="Ready")].message}{"\n"}"#,
        ])
        .await?;
    stage
        .show(&[
            "get",
            "streamsession",
            NAME,
            "-o",
            r#"jsonpath={.status.unsettledInstances}{"\n"}"#,
        ])
        .await?;
    stage.check_members(&ids(&["phone-1", "phone-2", "phone-4"]))?;
    stage.screen.ok("the service holds the other three: one bad phone holds nobody back.");

    want(stage, &["phone-1", "phone-2", "phone-4"]).await?;
    stage.show(&READY).await?;
    stage.show(&SESSIONS).await?;
    stage.simulator.set_faults(Faults::default());
    as_the_spec_says(stage).await
}

async fn no_phone_is_forgotten(stage: &mut Stage) -> Result<(), Failure> {
    stage.screen.heading("Step 4 of 5: the promise: an answer is lost, the operator is killed, and no phone is forgotten");
    stage.screen.say("The simulator will carry out the next call and hang up without an answer. At that moment the operator dies.");
    stage.simulator.set_faults(Faults { drop_answers: 1, ..Faults::default() });
    let patch = wanted(&["phone-1", "phone-2", "phone-4", "phone-5"]);
    let pid = stage
        .show_and_kill(&["patch", "streamsession", NAME, "--type=merge", "-p", &patch], "phone-5")
        .await?;
    stage.screen.command(format_args!("kill -KILL {pid}"));
    let lost = stage
        .simulator
        .calls()
        .iter()
        .filter(|call| call.outcome == Outcome::AppliedUnanswered)
        .count();
    stage.screen.say(format_args!(
        "{lost} call was carried out and never answered; the service holds {}.",
        names(&stage.simulator.members(SESSION))
    ));
    stage.screen.say("Nobody can ask the service for that: it has no such call.");
    what_was_written_down(stage).await?;

    stage.screen.say("While it is dead, the spec turns: phone-5 is not wanted any more.");
    want(stage, &["phone-1", "phone-2", "phone-4"]).await?;
    stage.screen.say(format_args!(
        "The operator starts again. The lost call may still be on its way, and nothing but its signature's expiry ends that doubt: after {} s and a \
         margin here, after 5 minutes at the service.",
        SIGNATURE_VALIDITY.as_secs()
    ));
    let started = Instant::now();
    stage.start_operator().await?;
    stage.show(&SESSIONS).await?;
    stage.show(&READY).await?;
    stage.show(&SESSIONS).await?;
    stage.screen.say(format_args!(
        "It was sure of everything {:.0} s after its start.",
        started.elapsed().as_secs_f64()
    ));
    as_the_spec_says(stage).await
}

/// The journal, if the operator died before it noticed the loss; that happens nearly always, but it
/// may have been quick.
async fn what_was_written_down(stage: &mut Stage) -> Result<(), Failure> {
    let journal = ["get", "streamsession", NAME, "-o", r#"jsonpath={.status.pendingCall}{"\n"}"#];
    if stage.kubectl.run(&journal).await?.trim().is_empty() {
        stage.screen.say("But the operator had just the time to write down that it does not know where phone-5 is:");
        stage
            .show(&[
                "get",
                "streamsession",
                NAME,
                "-o",
                r#"jsonpath={.status.unsettledInstances}{"\n"}"#,
            ])
            .await
    } else {
        stage
            .screen
            .say("But the operator had written down what it was about to do, before it did it:");
        stage.show(&journal).await
    }
}

async fn a_deletion_detaches_everything(stage: &mut Stage) -> Result<(), Failure> {
    stage.screen.heading("Step 5 of 5: a deletion detaches everything");
    stage.show(&["delete", "streamsession", NAME, "--timeout=60s"]).await?;
    stage.show(&SESSIONS).await?;
    stage.check_members(&BTreeSet::new())?;
    stage.screen.ok("the service holds nothing.");
    Ok(())
}

/// Edits the object as a person would, in one line.
async fn want(stage: &mut Stage, phones: &[&str]) -> Result<(), Failure> {
    stage.show(&["patch", "streamsession", NAME, "--type=merge", "-p", &wanted(phones)]).await
}

fn wanted(phones: &[&str]) -> String {
    serde_json::json!({"spec": {"slaveInstanceIds": phones}}).to_string()
}

/// The object is Ready, so the service must hold what the spec names: not soon, now.
async fn as_the_spec_says(stage: &mut Stage) -> Result<(), Failure> {
    let spec = stage.spec().await?;
    stage.check_members(&spec)?;
    stage.screen.ok(format_args!("the service itself holds {}, as the spec says.", names(&spec)));
    Ok(())
}

fn ids(phones: &[&str]) -> BTreeSet<String> {
    phones.iter().map(|&phone| phone.to_owned()).collect()
}
