//! Which keys there are, and where. What their values must be stands with the readers of the values.

/// What stands at a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A value; may be a table with keys that its reader knows.
    Value,
    /// A table with these keys.
    Table(&'static [Key]),
    /// A key that this version refuses.
    Later,
}

/// A key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub name: &'static str,
    pub shape: Shape,
}

const fn value(name: &'static str) -> Key {
    Key { name, shape: Shape::Value }
}

const fn table(name: &'static str, keys: &'static [Key]) -> Key {
    Key { name, shape: Shape::Table(keys) }
}

const fn later(name: &'static str) -> Key {
    Key { name, shape: Shape::Later }
}

/// A unit.
pub(super) const UNIT: &[Key] = &[
    value("description"),
    value("command"),
    value("type"),
    value("autostart"),
    value("working_dir"),
    value("user"),
    value("group"),
    value("umask"),
    value("directories"),
    value("environment"),
    value("environment_files"),
    value("inherit_environment"),
    value("requires"),
    value("wants"),
    value("after"),
    value("up_after"),
    value("start_timeout"),
    value("on_end"),
    value("ports"),
    table("restart", RESTART),
    table("stop", STOP),
    table("liveness", PROBE),
    table("readiness", PROBE),
    table("startup", PROBE),
    table("logs", LOGS),
    table("limits", LIMITS),
    later("restart_with"),
    later("instances"),
    later("reload"),
    later("hooks"),
    later("cgroup"),
    later("process"),
    later("sandbox"),
    later("listen"),
    later("watchdog"),
    later("notify_fd"),
    later("pid_file"),
    later("remain"),
    later("restart_mode"),
    later("schedule"),
    later("when"),
];

const RESTART: &[Key] = &[
    value("policy"),
    value("delay"),
    value("factor"),
    value("max_delay"),
    value("jitter"),
    value("reset_after"),
    value("limit"),
    value("success_exit_codes"),
    value("except_codes"),
];

const STOP: &[Key] = &[value("signal"), value("scope"), value("timeout"), value("leave"), later("command")];

const PROBE: &[Key] = &[
    table("http", HTTP),
    table("tcp", TCP),
    table("exec", EXEC),
    later("grpc"),
    value("initial_delay"),
    value("period"),
    value("timeout"),
    value("success_threshold"),
    value("failure_threshold"),
    value("stop_timeout"),
];

const HTTP: &[Key] =
    &[value("port"), value("path"), value("host"), value("scheme"), value("headers"), value("unix")];

const TCP: &[Key] = &[value("port"), value("host"), value("unix")];

const EXEC: &[Key] = &[value("command")];

const LOGS: &[Key] = &[
    value("stdout"),
    value("stderr"),
    value("timestamps"),
    value("prefix"),
    value("max_line"),
    value("max_size"),
    value("keep"),
];

const LIMITS: &[Key] = &[
    value("as"),
    value("core"),
    value("cpu"),
    value("data"),
    value("fsize"),
    value("locks"),
    value("memlock"),
    value("msgqueue"),
    value("nice"),
    value("nofile"),
    value("nproc"),
    value("rss"),
    value("rtprio"),
    value("rttime"),
    value("sigpending"),
    value("stack"),
];

/// One of `directories` that is a table.
pub(super) const DIRECTORY: &[Key] = &[value("path"), value("mode")];

/// `uphold.toml`.
pub(super) const CONFIG: &[Key] = &[
    table("defaults", UNIT),
    table("control", &[value("admin_groups"), value("read_groups")]),
    table("log", &[value("level"), value("format")]),
    value("shutdown_timeout"),
    value("main"),
];

/// Every key below these as the path of its table and its name.
pub(super) fn all(keys: &'static [Key]) -> Vec<(String, &'static Key)> {
    let mut found = Vec::new();
    let mut tables = vec![(String::new(), keys)];
    while let Some((path, keys)) = tables.pop() {
        for key in keys {
            found.push((path.clone(), key));
            if let Shape::Table(below) = key.shape {
                tables.push((join(&path, key.name), below));
            }
        }
    }
    found
}

/// `restart` and `delay` as `restart.delay`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Resource;

    #[test]
    fn the_limits_are_the_resources() {
        let keys: Vec<_> = LIMITS.iter().map(|key| key.name).collect();
        assert_eq!(keys, Resource::ALL.map(Resource::name));
    }

    #[test]
    fn no_key_stands_twice_in_a_table() {
        let mut all: Vec<_> = all(CONFIG).iter().map(|(path, key)| join(path, key.name)).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
