//! Commands about the daemon: loading files, health, versions, its end; and `cat`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper::Method;

use super::failure::{Code, Failure};
use super::{Context, json, units, words};
use crate::api::{Health, UnitConfig, Version};
use crate::engine::Changes;
use crate::unit::Name;

/// How long a new image may take to answer.
const BECOMES: Duration = Duration::from_secs(10);
/// How often it is asked.
const AGAIN: Duration = Duration::from_millis(5);

/// `cat`: the merged units.
pub(super) async fn cat(context: &Context, patterns: &[String]) -> Result<Code, Failure> {
    let (names, missing) = units::expand(context, patterns).await?;
    for (index, name) in names.iter().enumerate() {
        let target = format!("/v1/units/{name}/config");
        let (config, text) = context.client.get::<UnitConfig>(&target).await?;
        if context.json {
            context.out.line(&json::pretty(&text))?;
            continue;
        }
        if index > 0 {
            context.out.print("\n")?;
        }
        let text = if context.out.terminal { words::clean_lines(&config.text) } else { config.text };
        context.out.line(text.trim_end_matches('\n'))?;
    }
    Ok(if missing { Code::NoSuchUnit } else { Code::Fine })
}

/// `daemon-reload` and `update`.
pub(super) async fn load(context: &Context, what: &str, dry_run: bool) -> Result<Code, Failure> {
    let target = format!("/v1/{what}?dry_run={dry_run}");
    let answer = if dry_run {
        context.client.repeat(Method::POST, &target).await?.read()
    } else {
        context.client.post(&target, "").await.map_err(|failure| unknown_load(what, failure))
    };
    let (changes, text): (Changes, String) = answer?;
    if context.json {
        context.out.line(&json::pretty(&text))?;
        return Ok(Code::Fine);
    }
    for warning in &changes.warnings {
        context.out.complain(&format!("warning: {}", words::clean_lines(warning)));
    }
    context.out.print(&changed(&changes))?;
    Ok(Code::Fine)
}

/// Nobody can tell what came of it.
fn unknown_load(what: &str, failure: Failure) -> Failure {
    let Failure::Broken { why, .. } = failure else { return failure };
    Failure::Failed(format!(
        "cannot say whether the {what} took effect: uphold was replaced before it answered ({why}); `uphold ctl \
         {what} --dry-run` says what is left to do, and to ask again does no harm"
    ))
}

/// A line for uphold itself and one a unit: `new: added, started`.
fn changed(changes: &Changes) -> String {
    let facts = [
        (&changes.added, "added"),
        (&changes.applied, "applied"),
        (&changes.restart_needed, "restart needed"),
        (&changes.removed, "removed"),
        (&changes.started, "started"),
        (&changes.restarted, "restarted"),
        (&changes.stopped, "stopped"),
        (&changes.dependents, "stopped until what it requires is up"),
    ];
    let mut units: BTreeMap<&Name, Vec<&str>> = BTreeMap::new();
    for (names, word) in facts {
        for name in names {
            units.entry(name).or_default().push(word);
        }
    }
    // What an update restarts needs no restart any more.
    for words in units.values_mut().filter(|words| words.contains(&"restarted")) {
        words.retain(|word| *word != "restart needed");
    }
    let mut text = match changes.settings.join(", ") {
        none if none.is_empty() => none,
        keys => format!("uphold.toml: {}: applied\n", words::clean(&keys)),
    };
    let line = |(name, words): (&&Name, &Vec<&str>)| format!("{name}: {}\n", words.join(", "));
    text.extend(units.iter().map(line));
    if text.is_empty() {
        text.push_str("nothing changed\n");
    } else if changes.dry_run {
        text.push_str("a dry run: nothing was done\n");
    }
    text
}

/// `shutdown`: it has begun when this returns.
pub(super) async fn shutdown(context: &Context) -> Result<Code, Failure> {
    let asked = context.client.ask(Method::POST, "/v1/shutdown", "").await;
    let asked = asked.map_err(|failure| match failure {
        Failure::Broken { why, .. } => Failure::Failed(format!(
            "cannot say whether uphold shuts down: it ended, or was replaced, before it answered ({why}); \
             `uphold ctl status` says whether it is there"
        )),
        failure => failure,
    });
    asked?.accepted()?;
    if !context.json {
        context.out.line("uphold is shutting down")?;
    }
    Ok(Code::Fine)
}

/// `upgrade`: done when the new image answers.
pub(super) async fn upgrade(context: &Context) -> Result<Code, Failure> {
    let (before, _) = context.client.get::<Version>("/v1/version").await?;
    // The connection may end with the old image before the answer is read.
    if let Ok(answer) = context.client.ask(Method::POST, "/v1/upgrade", "").await {
        answer.accepted()?;
    }
    let until = Instant::now() + BECOMES;
    // The connections of the old image end with it; who comes meanwhile waits to be let in.
    let after = loop {
        match context.client.get::<Version>("/v1/version").await {
            // Its images are counted from 1 on again.
            Ok((after, _)) if (after.pid, &after.life) != (before.pid, &before.life) => {
                let (release, pid) = (words::clean(&after.version), after.pid);
                return Err(Failure::Failed(format!(
                    "cannot say that it was upgraded: uphold was killed and started anew meanwhile, and is {release} \
                     now, pid {pid}"
                )));
            }
            Ok((after, _)) if after.image != before.image => break after,
            Ok(_) | Err(_) if Instant::now() < until => tokio::time::sleep(AGAIN).await,
            Ok(_) => {
                let why = "the daemon goes on as it was; `uphold ctl events uphold` says why";
                return Err(Failure::Failed(format!("not upgraded: {why}")));
            }
            Err(failure) => return Err(failure),
        }
    };
    if !context.json {
        let (old, new) = (words::clean(&before.version), words::clean(&after.version));
        context.out.line(&format!("upgraded from {old} to {new}, pid {}", after.pid))?;
    }
    Ok(Code::Fine)
}

/// `version`: the client's is told also where no daemon answers.
pub(super) async fn version(context: &Context) -> Result<Code, Failure> {
    let client = env!("CARGO_PKG_VERSION");
    if context.json {
        let (_, text) = context.client.get::<Version>("/v1/version").await?;
        context.out.line(&json::pretty(&format!(r#"{{"client":"{client}","daemon":{text}}}"#)))?;
        return Ok(Code::Fine);
    }
    context.out.line(&format!("client {client}"))?;
    let (daemon, _) = context.client.get::<Version>("/v1/version").await?;
    context.out.line(&format!("daemon {}, pid {}", words::clean(&daemon.version), daemon.pid))?;
    Ok(Code::Fine)
}

/// `health`: ok, or what is not.
pub(super) async fn health(context: &Context, patterns: &[String]) -> Result<Code, Failure> {
    let (names, missing) = match patterns {
        [] => (Vec::new(), false),
        some => units::expand(context, some).await?,
    };
    let query: Vec<String> = names.iter().map(|name| format!("unit={name}")).collect();
    let target = if query.is_empty() { "/readyz".to_owned() } else { format!("/readyz?{}", query.join("&")) };
    let (health, text) = context.client.get::<Health>(&target).await?;
    let text = if context.json { json::pretty(&text) + "\n" } else { well(&health) };
    context.out.print(&text)?;
    let code = if health.healthy { Code::Fine } else { Code::Failed };
    Ok(if missing { code.min(Code::NoSuchUnit) } else { code })
}

fn well(health: &Health) -> String {
    if health.healthy {
        return "ok\n".to_owned();
    }
    if health.units.is_empty() {
        return "not well\n".to_owned();
    }
    let line = |unit: &crate::api::Unwell| match unit.message.is_empty() {
        true => format!("{}: {}\n", unit.name, unit.state.as_str()),
        false => format!("{}: {}: {}\n", unit.name, unit.state.as_str(), words::clean(&unit.message)),
    };
    health.units.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Unwell;
    use crate::engine::StateName;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn changes_are_a_line_a_unit() {
        assert_eq!(changed(&Changes::default()), "nothing changed\n");
        let mut changes = Changes {
            added: vec![name("new")],
            started: vec![name("new")],
            restart_needed: vec![name("db"), name("web")],
            restarted: vec![name("db")],
            dependents: vec![name("app")],
            ..Changes::default()
        };
        let expected = "app: stopped until what it requires is up\ndb: restarted\nnew: added, started\nweb: restart needed\n";
        assert_eq!(changed(&changes), expected);
        changes.settings = vec!["log.level".to_owned(), "main".to_owned()];
        let expected = format!("uphold.toml: log.level, main: applied\n{expected}");
        assert_eq!(changed(&changes), expected);
        changes.dry_run = true;
        assert_eq!(changed(&changes), format!("{expected}a dry run: nothing was done\n"));
    }

    #[test]
    fn health_names_what_is_not_well() {
        let mut health = Health { healthy: true, units: Vec::new() };
        assert_eq!(well(&health), "ok\n");
        health.healthy = false;
        health.units =
            vec![Unwell { name: name("db"), state: StateName::Backoff, message: "exit 1".to_owned() }];
        assert_eq!(well(&health), "db: backoff: exit 1\n");
    }
}
