//! From a merged tree to a checked [`Unit`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::field::{Context, Field, Fields};
use super::schema::{DIRECTORY, Key, Shape, UNIT};
use super::tree::{At, Table, Value};
use super::{
    Directory, EnvironmentFile, ExitMatch, Inherit, Kind, Limit, Logs, OnEnd, Output, Policy, Resource,
    Scope, Stop, Unit, command, diagnose, foreign, probe, quantity,
};

/// Reads a unit; what is wrong goes to the problems. `main`: it is read as if it said `on_end = "shutdown"`.
/// `top` is where the lack of a key is said.
pub(super) fn unit(cx: &mut Context<'_>, table: &Table, top: &At, main: bool) -> Unit {
    let mut unit = Unit::new(cx.name.clone());
    let fields = Fields { table: Some(table), path: String::new() };
    read(cx, &fields, "description", &mut unit.description, |f, cx| f.string(cx, "a text"));
    read(cx, &fields, "type", &mut unit.kind, kind);
    read(cx, &fields, "autostart", &mut unit.autostart, |f, cx| f.boolean(cx));
    read_some(cx, &fields, "working_dir", &mut unit.working_dir, |f, cx| f.path(cx));
    read_some(cx, &fields, "user", &mut unit.user, |f, cx| f.account(cx));
    read_some(cx, &fields, "group", &mut unit.group, |f, cx| f.account(cx));
    read(cx, &fields, "umask", &mut unit.umask, |f, cx| f.mode(cx, 0o777));
    read(cx, &fields, "directories", &mut unit.directories, directories);
    read(cx, &fields, "environment", &mut unit.environment, environment);
    read(cx, &fields, "environment_files", &mut unit.environment_files, environment_files);
    read(cx, &fields, "inherit_environment", &mut unit.inherit_environment, inherit);
    read(cx, &fields, "requires", &mut unit.requires, |f, cx| f.names(cx));
    read(cx, &fields, "wants", &mut unit.wants, |f, cx| f.names(cx));
    read(cx, &fields, "after", &mut unit.after, |f, cx| f.names(cx));
    read(cx, &fields, "up_after", &mut unit.up_after, |f, cx| f.duration(cx));
    if unit.kind == Kind::Oneshot {
        unit.start_timeout = None;
    }
    let none_if_zero = |duration: Duration| (!duration.is_zero()).then_some(duration);
    read(cx, &fields, "start_timeout", &mut unit.start_timeout, |f, cx| f.duration(cx).map(none_if_zero));
    let on_end = [("none", OnEnd::None), ("shutdown", OnEnd::Shutdown)];
    read(cx, &fields, "on_end", &mut unit.on_end, |f, cx| f.word(cx, &on_end));
    if main {
        unit.on_end = OnEnd::Shutdown;
    }
    read(cx, &fields, "ports", &mut unit.ports, probe::ports);
    the_command(cx, &fields, &mut unit, top);
    restart(cx, &fields.table("restart"), &mut unit, main);
    stop(cx, &fields.table("stop"), &mut unit.stop);
    probe::all(cx, &fields, &mut unit);
    match unit.kind {
        Kind::Group => without_process(cx, table),
        Kind::Simple | Kind::Oneshot => without_effect(cx, &fields, &unit),
    }
    logs(cx, &fields.table("logs"), &mut unit.logs);
    limits(cx, &fields.table("limits"), &mut unit.limits);
    unit
}

/// Says which keys say nothing beside others.
fn without_effect(cx: &mut Context<'_>, fields: &Fields<'_>, unit: &Unit) {
    if let Some(field) = fields.get("up_after").filter(|field| !field.default && !unit.up_after.is_zero()) {
        let why = match unit.kind {
            Kind::Oneshot => Some("a oneshot is up once it has completed"),
            Kind::Simple if unit.readiness.is_some() => Some("the readiness probe says when it is up"),
            Kind::Simple if unit.startup.is_some() => Some("the startup probe says when it is up"),
            Kind::Simple | Kind::Group => None,
        };
        if let Some(why) = why {
            let help = Some("take it out".to_owned());
            cx.warning(&field.node.at, format!("`up_after` changes nothing: {why}"), help);
        }
    }
    for (table, key, why) in NOT_OF_A_ONESHOT.into_iter().filter(|_| unit.kind == Kind::Oneshot) {
        let fields = if table.is_empty() { fields.clone() } else { fields.table(table) };
        if let Some(field) = fields.get(key).filter(|field| !field.default) {
            let message = format!("`{}` changes nothing: {why}", field.path);
            cx.warning(&field.node.at, message, Some("take it out".to_owned()));
        }
    }
}

/// What changes nothing for a oneshot, and why.
const NOT_OF_A_ONESHOT: [(&str, &str, &str); 2] = [
    ("restart", "reset_after", "a oneshot is not up while it runs"),
    ("", "ports", "they are for probes, and a oneshot has none"),
];

/// What a group may say: how it stands among other units.
const OF_A_GROUP: [&str; 7] =
    ["description", "type", "autostart", "requires", "wants", "after", "start_timeout"];

/// Refuses every other key in a group. What only the defaults say is no contradiction of it.
fn without_process(cx: &mut Context<'_>, table: &Table) {
    let said = table.in_order().into_iter().filter(|(_, entry)| !entry.is_default());
    for (name, entry) in said.filter(|(name, _)| !OF_A_GROUP.contains(name)) {
        // The walk over the keys has refused those that it does not know, or not yet.
        let known = UNIT.iter().find(|key| key.name == name);
        let Some(Key { shape: Shape::Value | Shape::Table(_), .. }) = known else { continue };
        let (what, help) = match name {
            "up_after" => (": it is up once all that it requires is", "take it out"),
            "on_end" => (", which never ends", "write it in the unit whose end is meant"),
            "command" => (", which has no process", "take it out, or write type = \"simple\""),
            _ => (", which has no process", "take it out, or write it in the units that it requires"),
        };
        let message = format!("`{name}` means nothing for a group{what}");
        cx.error(&entry.key, message, Some(help.to_owned()));
    }
}

/// Reads a key over its default.
fn read<'t, T>(
    cx: &mut Context<'_>,
    fields: &Fields<'t>,
    key: &str,
    into: &mut T,
    reader: impl FnOnce(&Field<'t>, &mut Context<'_>) -> Option<T>,
) {
    if let Some(value) = fields.get(key).and_then(|field| reader(&field, cx)) {
        *into = value;
    }
}

fn read_some<'t, T>(
    cx: &mut Context<'_>,
    fields: &Fields<'t>,
    key: &str,
    into: &mut Option<T>,
    reader: impl FnOnce(&Field<'t>, &mut Context<'_>) -> Option<T>,
) {
    read(cx, fields, key, into, |field, cx| reader(field, cx).map(Some));
}

fn kind(field: &Field<'_>, cx: &mut Context<'_>) -> Option<Kind> {
    if let Value::String(text) = &field.node.value
        && matches!(text.as_str(), "notify" | "forking")
    {
        let help = match text.as_str() {
            "notify" => "write type = \"simple\" and a readiness probe",
            _ => "write type = \"simple\", and start the program in the foreground",
        };
        field.error(cx, format!("not supported yet: type = \"{text}\""), help.to_owned());
        return None;
    }
    field.word(cx, &[("simple", Kind::Simple), ("oneshot", Kind::Oneshot), ("group", Kind::Group)])
}

/// `command`, which every unit but a group has.
fn the_command(cx: &mut Context<'_>, fields: &Fields<'_>, unit: &mut Unit, top: &At) {
    let field = fields.get("command");
    match (unit.kind, field) {
        (Kind::Group, Some(_) | None) => {}
        (Kind::Simple | Kind::Oneshot, Some(field)) => unit.command = argv(&field, cx).unwrap_or_default(),
        (Kind::Simple | Kind::Oneshot, None) if cx.partial => {}
        (Kind::Simple | Kind::Oneshot, None) => {
            let help = "write command = [\"/path/to/program\", \"argument\"], or type = \"group\"".to_owned();
            cx.error(top, "there is no `command`".to_owned(), Some(help));
        }
    }
}

/// A command: a list, or one string that is split as a shell splits words.
pub(super) fn argv(field: &Field<'_>, cx: &mut Context<'_>) -> Option<Vec<String>> {
    let words = match &field.node.value {
        Value::String(text) => split(field, cx, text)?,
        Value::Array(_) => {
            let items = field.items(cx, "a list of strings")?;
            let count = items.len();
            let words: Vec<_> =
                items.iter().filter_map(|item| item.string(cx, "a list of strings")).collect();
            if words.len() != count {
                return None;
            }
            words
        }
        _ => {
            field.wrong(cx, "a list of strings", "write [\"program\", \"argument\"]");
            return None;
        }
    };
    if words.first().is_none_or(String::is_empty) {
        let message = match words.is_empty() {
            true => format!("`{}` is empty", field.path),
            false => format!("`{}` begins with an empty word where the program goes", field.path),
        };
        field.error(cx, message, "write [\"program\", \"argument\"]".to_owned());
        return None;
    }
    Some(words)
}

fn split(field: &Field<'_>, cx: &mut Context<'_>, text: &str) -> Option<Vec<String>> {
    match command::split(text) {
        // Words first, placeholders then: what a variable holds is never split.
        Ok(words) => Some(words.iter().map(|word| cx.replace(word, &field.node.at)).collect()),
        Err((reason, shell)) => {
            let message = format!("`{}` cannot be split into words: {reason}", field.path);
            let key = field.path.rsplit('.').next().unwrap_or_default();
            let help = match shell {
                true => format!("write {key} = [\"sh\", \"-c\", {}]", super::cat::quoted(text)),
                false => "close it, or write a list of words".to_owned(),
            };
            field.error(cx, message, help);
            None
        }
    }
}

fn directories(field: &Field<'_>, cx: &mut Context<'_>) -> Option<Vec<Directory>> {
    if let Value::Table(_) = field.node.value {
        field.wrong(
            cx,
            "a list of paths",
            "write directories = [\"/run/app\"], or [{ path = \"/run/app\" }]",
        );
        return None;
    }
    field.list(cx, "a list of paths", |cx, item| {
        let Value::Table(table) = &item.node.value else {
            return item.path(cx).map(|path| Directory { path, mode: 0o755 });
        };
        for (key, entry) in table.in_order() {
            if !DIRECTORY.iter().any(|known| known.name == key) {
                let problem = diagnose::unknown(key, entry, DIRECTORY, "directories", UNIT, Some(cx.name));
                cx.problems.push(problem);
            }
        }
        let fields = Fields { table: Some(table), path: item.path.clone() };
        let mut mode = 0o755;
        read(cx, &fields, "mode", &mut mode, |f, cx| f.mode(cx, 0o7777));
        match fields.get("path") {
            Some(path) => path.path(cx).map(|path| Directory { path, mode }),
            None => {
                item.error(cx, "a directory must have a `path`".to_owned(), None);
                None
            }
        }
    })
}

fn environment(field: &Field<'_>, cx: &mut Context<'_>) -> Option<BTreeMap<String, String>> {
    let Value::Table(table) = &field.node.value else {
        field.wrong(cx, "a table", "write environment = { NAME = \"value\" }");
        return None;
    };
    let mut variables = BTreeMap::new();
    for (name, entry) in table.in_order() {
        if name.is_empty() || name.contains('=') {
            cx.error(&entry.key, format!("`{name}` cannot be the name of a variable"), None);
            continue;
        }
        let value = Field::new(format!("environment.{name}"), entry);
        if let Some(value) = value.string(cx, "a string") {
            variables.insert(name.to_owned(), value);
        }
    }
    Some(variables)
}

fn environment_files(field: &Field<'_>, cx: &mut Context<'_>) -> Option<Vec<EnvironmentFile>> {
    field.list(cx, "a list of paths", |cx, item| {
        let text = item.string(cx, "a list of paths")?;
        let (path, optional) = match text.strip_prefix('-') {
            Some(path) => (path, true),
            None => (text.as_str(), false),
        };
        item.absolute(cx, path).map(|path| EnvironmentFile { path, optional })
    })
}

fn inherit(field: &Field<'_>, cx: &mut Context<'_>) -> Option<Inherit> {
    match &field.node.value {
        Value::Boolean(true) => Some(Inherit::All),
        Value::Boolean(false) => Some(Inherit::Nothing),
        _ => {
            let wanted = "true, false or a list of names";
            let names = field.list(cx, wanted, |cx, item| {
                let name = item.string(cx, "a list of names")?;
                if name.is_empty() || name.contains('=') {
                    item.error(cx, format!("\"{name}\" cannot be the name of a variable"), None);
                    return None;
                }
                Some(name)
            })?;
            Some(Inherit::Names(names))
        }
    }
}

fn restart(cx: &mut Context<'_>, fields: &Fields<'_>, unit: &mut Unit, main: bool) {
    let restart = &mut unit.restart;
    read(cx, fields, "delay", &mut restart.delay, |f, cx| f.duration(cx));
    let factor = "must be a number from 1.0 to 1000.0";
    read(cx, fields, "factor", &mut restart.factor, |f, cx| f.float(cx, 1.0, 1000.0, factor));
    match fields.get("max_delay") {
        Some(field) => {
            restart.max_delay = field.duration(cx).unwrap_or(restart.max_delay.max(restart.delay));
            let delay = fields.get("delay");
            if restart.delay > restart.max_delay {
                // A default for all is no contradiction of what one unit says.
                match (delay.as_ref().is_some_and(|delay| delay.default), field.default) {
                    (true, false) => restart.delay = restart.max_delay,
                    (false, true) if delay.is_some() => restart.max_delay = restart.delay,
                    (true | false, true | false) => {
                        let message = "`restart.max_delay` is below `restart.delay`".to_owned();
                        field.error(cx, message, "raise it, or lower `restart.delay`".to_owned());
                    }
                }
            }
        }
        // A long first delay alone says that later ones are no shorter.
        None => restart.max_delay = restart.max_delay.max(restart.delay),
    }
    let share = "must be a number from 0.0 to 1.0";
    read(cx, fields, "jitter", &mut restart.jitter, |f, cx| f.float(cx, 0.0, 1.0, share));
    read(cx, fields, "reset_after", &mut restart.reset_after, |f, cx| f.duration(cx));
    let number = "must be a number from 0 to 4294967295";
    read(cx, fields, "limit", &mut restart.limit, |f, cx| f.integer(cx, 0, u32::MAX.into(), number));
    read(cx, fields, "success_exit_codes", &mut restart.success, exit_matches);
    read(cx, fields, "except_codes", &mut restart.except, exit_matches);
    policy(cx, fields, unit, main);
}

/// The policy, its default, and what contradicts it.
fn policy(cx: &mut Context<'_>, fields: &Fields<'_>, unit: &mut Unit, main: bool) {
    let words = [("always", Policy::Always), ("on-failure", Policy::OnFailure), ("never", Policy::Never)];
    let field = fields.get("policy");
    let said = field.as_ref().and_then(|field| field.word(cx, &words));
    let ends = unit.on_end == OnEnd::Shutdown;
    unit.restart.policy = match (said, unit.kind) {
        (Some(said), _) => said,
        (None, Kind::Oneshot) => Policy::Never,
        (None, Kind::Simple | Kind::Group) if ends => Policy::Never,
        (None, Kind::Simple | Kind::Group) => Policy::Always,
    };
    let Some(field) = field.filter(|_| said == Some(Policy::Always)) else { return };
    let never_ends = ends && unit.restart.limit == 0 && unit.restart.except.is_empty();
    let oneshot = unit.kind == Kind::Oneshot;
    if !oneshot && !never_ends {
        return;
    }
    if field.default {
        // A default for all is no contradiction of what one unit says.
        unit.restart.policy = Policy::Never;
    } else if oneshot {
        let help = "write \"on-failure\" or \"never\"".to_owned();
        field.error(cx, "a oneshot cannot have the restart policy \"always\"".to_owned(), help);
    } else {
        let who =
            if main { "the main unit (--main, or `main` in uphold.toml)" } else { "`on_end = \"shutdown\"`" };
        let message = format!("{who} could never end: the restart policy is \"always\", without a limit");
        let help =
            "write \"on-failure\" or \"never\", or set `restart.limit` or `restart.except_codes`".to_owned();
        field.error(cx, message, help);
    }
}

fn exit_matches(field: &Field<'_>, cx: &mut Context<'_>) -> Option<Vec<ExitMatch>> {
    field.list(cx, "a list of exit codes and signals", |cx, item| match &item.node.value {
        Value::Integer(_) => {
            item.integer(cx, 0, 255, "must hold exit codes from 0 to 255").map(ExitMatch::Code)
        }
        // In quotes a number would be a signal by number, and nobody means that here.
        Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
            let message = format!("`{}` must hold exit codes without quotes", item.path);
            item.error(cx, message, format!("write {text}"));
            None
        }
        Value::String(_) => item.signal(cx).map(ExitMatch::Signal),
        _ => {
            item.wrong(cx, "a list of exit codes and signals", "write numbers, and signals in quotes");
            None
        }
    })
}

fn stop(cx: &mut Context<'_>, fields: &Fields<'_>, stop: &mut Stop) {
    read(cx, fields, "signal", &mut stop.signal, |f, cx| f.signal(cx));
    read(cx, fields, "scope", &mut stop.scope, |f, cx| {
        f.word(cx, &[("main", Scope::Main), ("group", Scope::Group)])
    });
    read(cx, fields, "timeout", &mut stop.timeout, |f, cx| f.duration(cx));
    read(cx, fields, "leave", &mut stop.leave, |f, cx| f.boolean(cx));
}

fn logs(cx: &mut Context<'_>, fields: &Fields<'_>, logs: &mut Logs) {
    read_some(cx, fields, "stdout", &mut logs.stdout, |f, cx| output(f, cx, false).flatten());
    read(cx, fields, "stderr", &mut logs.stderr, |f, cx| output(f, cx, true));
    read(cx, fields, "timestamps", &mut logs.timestamps, |f, cx| f.boolean(cx));
    read(cx, fields, "prefix", &mut logs.prefix, |f, cx| f.boolean(cx));
    if let Some(field) = fields.get("max_line") {
        match field.size(cx) {
            Some(size) if !(1..=Logs::LONGEST_LINE).contains(&size) => {
                field.error(cx, "`logs.max_line` must be from 1 byte to 16MiB".to_owned(), None);
            }
            Some(size) => logs.max_line = size,
            None => {}
        }
    }
    read(cx, fields, "max_size", &mut logs.max_size, |f, cx| f.size(cx));
    let number = "must be a number from 0 to 4294967295";
    read(cx, fields, "keep", &mut logs.keep, |f, cx| f.integer(cx, 0, u32::MAX.into(), number));
}

/// `Some(None)` is stderr together with stdout.
fn output(field: &Field<'_>, cx: &mut Context<'_>, stderr: bool) -> Option<Option<Output>> {
    let words = if stderr {
        "\"stdout\", \"file\", \"inherit\", \"null\""
    } else {
        "\"file\", \"inherit\", \"null\""
    };
    let text = field.string(cx, &format!("one of {words} or an absolute path"))?;
    match text.as_str() {
        "file" => Some(Some(Output::File)),
        "inherit" => Some(Some(Output::Inherit)),
        "null" | "/dev/null" => Some(Some(Output::Null)),
        "stdout" if stderr => Some(None),
        path if path.starts_with('/') && !path.ends_with('/') => Some(Some(Output::Path(path.into()))),
        dir if dir.starts_with('/') => {
            let help = format!("write \"{}/{}.log\", or \"file\"", dir.trim_end_matches('/'), cx.name);
            field.error(cx, format!("`{}` must be a file, not the directory \"{dir}\"", field.path), help);
            None
        }
        other => {
            let help = match diagnose::nearest(other, ["file", "inherit", "null"]) {
                _ if other.contains('/') => Some("begin it with /".to_owned()),
                Some(near) => Some(format!("did you mean \"{near}\"?")),
                None => foreign::value(&field.path, other).map(str::to_owned),
            };
            let message =
                format!("`{}` must be one of {words} or an absolute path, not \"{other}\"", field.path);
            field.error(cx, message, help);
            None
        }
    }
}

fn limits(cx: &mut Context<'_>, fields: &Fields<'_>, limits: &mut BTreeMap<Resource, Limit>) {
    for resource in Resource::ALL {
        let Some(field) = fields.get(resource.name()) else { continue };
        let limit = match &field.node.value {
            Value::Array(items) if items.len() == 2 => {
                let Some(pair) = field.list(cx, "a list", |cx, item| bound(item, cx)) else { continue };
                match pair[..] {
                    [soft, hard] => Limit { soft, hard },
                    _ => continue,
                }
            }
            _ => match bound(&field, cx) {
                Some(both) => Limit { soft: both, hard: both },
                None => continue,
            },
        };
        if limit.soft.unwrap_or(u64::MAX) > limit.hard.unwrap_or(u64::MAX) {
            let message = format!("`{}` has a soft limit above its hard limit", field.path);
            field.error(cx, message, "write [soft, hard]".to_owned());
            continue;
        }
        limits.insert(resource, limit);
    }
}

/// A number, a size, or `unlimited`: `Some(None)`.
fn bound(field: &Field<'_>, cx: &mut Context<'_>) -> Option<Option<u64>> {
    let help = "write a number, \"unlimited\" or [soft, hard]";
    match &field.node.value {
        Value::String(text) if text == "unlimited" => Some(None),
        Value::String(_) => {
            let text = field.string(cx, "a limit")?;
            let help = match text.split_once(':') {
                _ if text == "infinity" => "write \"unlimited\"".to_owned(),
                Some((soft, hard)) => format!("write [{soft}, {hard}]"),
                None => help.to_owned(),
            };
            let wrong = |why| field.error(cx, format!("`{}` must be a limit: {why}", field.path), help);
            quantity::size(&text).map_err(wrong).ok().map(Some)
        }
        // The highest number is the kernel's own word for "unlimited".
        Value::Integer(_) => {
            let range = "must be 0 or more, or \"unlimited\"";
            field.integer(cx, 0, i128::from(u64::MAX) - 1, range).map(Some)
        }
        _ => {
            field.wrong(cx, "a limit", help);
            None
        }
    }
}
