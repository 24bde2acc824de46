//! Words of other supervisors, and what they are here.

/// A key of another program: whose, its words, and what it is here. An answer that begins with a dot is a
/// key of the probe in which it stands.
struct Word {
    whose: &'static str,
    words: &'static [&'static str],
    here: &'static str,
}

const SYSTEMD: &str = "systemd";
const SUPERVISORD: &str = "supervisord";
const COMPOSE: &str = "compose";
const KUBERNETES: &str = "Kubernetes";

const fn word(whose: &'static str, words: &'static [&'static str], here: &'static str) -> Word {
    Word { whose, words, here }
}

const WORDS: &[Word] = &[
    word(SYSTEMD, &["Unit", "Service", "Install"], "no table: its keys stand at the top of the file"),
    word(SYSTEMD, &["Description"], "`description`"),
    word(SYSTEMD, &["ExecStart"], "`command`"),
    word(SYSTEMD, &["ExecStartPre", "ExecStartPost"], "a oneshot unit that this one requires"),
    word(SYSTEMD, &["ExecReload"], "not supported yet: it will be [reload]"),
    word(SYSTEMD, &["ExecStop"], "`signal` in [stop]: a stop is a signal"),
    word(SYSTEMD, &["ExecStopPost"], "not supported yet: it will be in [hooks]"),
    word(SYSTEMD, &["Type"], "`type`"),
    word(SYSTEMD, &["Restart"], "`policy` in [restart]"),
    word(SYSTEMD, &["RestartSec"], "`delay` in [restart]"),
    word(SYSTEMD, &["RestartMaxDelaySec"], "`max_delay` in [restart]"),
    word(SYSTEMD, &["StartLimitBurst"], "`limit` in [restart]"),
    word(SYSTEMD, &["StartLimitIntervalSec", "StartLimitInterval"], "`reset_after` in [restart]"),
    word(SYSTEMD, &["SuccessExitStatus"], "`success_exit_codes` in [restart]"),
    word(SYSTEMD, &["RestartPreventExitStatus"], "`except_codes` in [restart]"),
    word(SYSTEMD, &["User"], "`user`"),
    word(SYSTEMD, &["Group"], "`group`"),
    word(SYSTEMD, &["UMask"], "`umask`"),
    word(SYSTEMD, &["WorkingDirectory"], "`working_dir`"),
    word(
        SYSTEMD,
        &["RuntimeDirectory", "StateDirectory", "CacheDirectory", "LogsDirectory"],
        "`directories`, with whole paths",
    ),
    word(SYSTEMD, &["Environment"], "`environment`, a table"),
    word(SYSTEMD, &["EnvironmentFile"], "`environment_files`, a list"),
    word(SYSTEMD, &["PassEnvironment"], "`inherit_environment`, a list of names"),
    word(SYSTEMD, &["After"], "`after`, a list"),
    word(SYSTEMD, &["Before"], "`after` in the other unit"),
    word(SYSTEMD, &["Requires", "BindsTo", "Requisite"], "`requires`, a list"),
    word(SYSTEMD, &["Wants"], "`wants`, a list"),
    word(SYSTEMD, &["PartOf"], "`requires`, a list"),
    word(SYSTEMD, &["WantedBy", "RequiredBy"], "`autostart`"),
    word(SYSTEMD, &["TimeoutStartSec"], "`start_timeout`"),
    word(SYSTEMD, &["TimeoutStopSec"], "`timeout` in [stop]"),
    word(SYSTEMD, &["TimeoutSec"], "`start_timeout`, and `timeout` in [stop]"),
    word(SYSTEMD, &["KillSignal"], "`signal` in [stop]"),
    word(SYSTEMD, &["KillMode"], "`scope` or `leave` in [stop]"),
    word(SYSTEMD, &["SuccessAction", "FailureAction"], "`on_end`"),
    word(SYSTEMD, &["StandardOutput"], "`stdout` in [logs]"),
    word(SYSTEMD, &["StandardError"], "`stderr` in [logs]"),
    word(SYSTEMD, &["WatchdogSec"], "[liveness], a probe from outside"),
    word(SYSTEMD, &["PIDFile"], "not needed: start the program in the foreground"),
    word(SYSTEMD, &["RemainAfterExit"], "not needed: a oneshot stays up until it is stopped"),
    word(SYSTEMD, &["LimitNOFILE"], "`nofile` in [limits]"),
    word(SYSTEMD, &["LimitNPROC"], "`nproc` in [limits]"),
    word(SYSTEMD, &["LimitCORE"], "`core` in [limits]"),
    word(SYSTEMD, &["LimitMEMLOCK"], "`memlock` in [limits]"),
    word(SYSTEMD, &["LimitAS"], "`as` in [limits]"),
    word(SYSTEMD, &["LimitCPU"], "`cpu` in [limits]"),
    word(SYSTEMD, &["LimitDATA"], "`data` in [limits]"),
    word(SYSTEMD, &["LimitFSIZE"], "`fsize` in [limits]"),
    word(SYSTEMD, &["LimitSTACK"], "`stack` in [limits]"),
    word(SYSTEMD, &["LimitRSS"], "`rss` in [limits]"),
    word(SYSTEMD, &["LimitNICE"], "`nice` in [limits]"),
    word(SYSTEMD, &["LimitRTPRIO"], "`rtprio` in [limits]"),
    word(SYSTEMD, &["LimitSIGPENDING"], "`sigpending` in [limits]"),
    word(
        SYSTEMD,
        &["MemoryMax", "MemoryHigh", "CPUQuota", "TasksMax"],
        "not supported yet: it will be in [cgroup]",
    ),
    word(SYSTEMD, &["cwd", "workdir", "chdir"], "`working_dir`"),
    word(SUPERVISORD, &["directory"], "`working_dir`"),
    word(SUPERVISORD, &["autorestart"], "`policy` in [restart]"),
    word(SUPERVISORD, &["exitcodes"], "`success_exit_codes` in [restart]"),
    word(SUPERVISORD, &["startsecs"], "`up_after`"),
    word(SUPERVISORD, &["startretries"], "`limit` in [restart]"),
    word(SUPERVISORD, &["stopwaitsecs"], "`timeout` in [stop] (stop.timeout)"),
    word(SUPERVISORD, &["stopsignal"], "`signal` in [stop]"),
    word(SUPERVISORD, &["stopasgroup", "killasgroup"], "`scope` in [stop]"),
    word(SUPERVISORD, &["stdout_logfile"], "`stdout` in [logs]"),
    word(SUPERVISORD, &["stderr_logfile"], "`stderr` in [logs]"),
    word(SUPERVISORD, &["redirect_stderr"], "`stderr` in [logs]"),
    word(SUPERVISORD, &["stdout_logfile_maxbytes", "stderr_logfile_maxbytes"], "`max_size` in [logs]"),
    word(SUPERVISORD, &["stdout_logfile_backups", "stderr_logfile_backups"], "`keep` in [logs]"),
    word(SUPERVISORD, &["priority"], "`after`: what is waited for, not a number"),
    word(SUPERVISORD, &["numprocs"], "not supported yet: it will be `instances`"),
    word(SUPERVISORD, &["program"], "no table: a file holds one unit, named by the file"),
    word(COMPOSE, &["depends_on"], "`requires`, a list"),
    word(COMPOSE, &["env_file"], "`environment_files`, a list"),
    word(COMPOSE, &["entrypoint"], "`command`, together with its arguments"),
    word(COMPOSE, &["healthcheck"], "[liveness] (a restart) or [readiness] (what others wait for)"),
    word(COMPOSE, &["stop_signal"], "`signal` in [stop]"),
    word(COMPOSE, &["stop_grace_period"], "`timeout` in [stop]"),
    word(COMPOSE, &["ulimits"], "[limits]"),
    word(COMPOSE, &["logging"], "[logs]"),
    word(COMPOSE, &["interval"], ".period"),
    word(COMPOSE, &["retries"], ".failure_threshold"),
    word(COMPOSE, &["start_period"], "[startup], a probe of its own"),
    word(COMPOSE, &["test"], ".exec"),
    word(KUBERNETES, &["args"], "part of `command`, after the program"),
    word(KUBERNETES, &["workingDir"], "`working_dir`"),
    word(KUBERNETES, &["env"], "`environment`, a table"),
    word(KUBERNETES, &["envFrom"], "`environment_files`, a list"),
    word(KUBERNETES, &["restartPolicy"], "`policy` in [restart]"),
    word(KUBERNETES, &["livenessProbe"], "[liveness]"),
    word(KUBERNETES, &["readinessProbe"], "[readiness]"),
    word(KUBERNETES, &["startupProbe"], "[startup]"),
    word(KUBERNETES, &["httpGet"], ".http"),
    word(KUBERNETES, &["tcpSocket"], ".tcp"),
    word(KUBERNETES, &["periodSeconds"], ".period"),
    word(KUBERNETES, &["timeoutSeconds"], ".timeout"),
    word(KUBERNETES, &["failureThreshold"], ".failure_threshold"),
    word(KUBERNETES, &["successThreshold"], ".success_threshold"),
    word(KUBERNETES, &["initialDelaySeconds"], ".initial_delay"),
    word(KUBERNETES, &["httpHeaders"], "`headers`, a table"),
    word(KUBERNETES, &["containerPort"], "`ports`, a table"),
    word(KUBERNETES, &["resources"], "[limits]; [cgroup] is not supported yet"),
    word(KUBERNETES, &["lifecycle"], "not supported yet: it will be [hooks]"),
    word(KUBERNETES, &["replicas"], "not supported yet: it will be `instances`"),
];

/// What a foreign key means, in a sentence, where it stands in the table at this path. `exact`: written as it
/// is written there; otherwise also in another case.
pub(super) fn meaning(key: &str, table: &str, exact: bool) -> Option<String> {
    let probe = table.split('.').find(|part| matches!(*part, "liveness" | "readiness" | "startup"));
    if key == "terminationGracePeriodSeconds" {
        let here = match probe {
            Some(probe) => format!("`{probe}.stop_timeout`"),
            None => "`timeout` in [stop]".to_owned(),
        };
        return Some(format!("{KUBERNETES}' `{key}` is {here} here"));
    }
    let same = |other: &&str| if exact { *other == key } else { other.eq_ignore_ascii_case(key) };
    let found = WORDS.iter().find(|word| word.words.iter().any(same))?;
    let here = match (found.here.strip_prefix('.'), probe) {
        (None, _) => found.here.to_owned(),
        (Some(here), Some(probe)) => format!("`{probe}.{here}`"),
        (Some(here), None) => format!("`{here}` in [liveness], [readiness] or [startup]"),
    };
    let whose = match found.whose {
        KUBERNETES => "Kubernetes'".to_owned(),
        whose => format!("{whose}'s"),
    };
    // The loose words of a shell belong to nobody.
    if matches!(key, "cwd" | "workdir" | "chdir") {
        return Some(format!("`{key}` is {here} here"));
    }
    Some(format!("{whose} `{key}` is {here} here"))
}

/// The table of ours that a foreign table is.
pub(super) fn table(key: &str) -> Option<&'static str> {
    match key {
        "livenessProbe" => Some("liveness"),
        "readinessProbe" => Some("readiness"),
        "startupProbe" => Some("startup"),
        "httpGet" => Some("http"),
        "tcpSocket" => Some("tcp"),
        _ => None,
    }
}

/// What stands here for a value that another program has at the key of this path.
pub(super) fn value(path: &str, text: &str) -> Option<&'static str> {
    let here = match (path, text.to_lowercase().as_str()) {
        ("type", "exec" | "service" | "daemon" | "idle" | "dbus" | "longrun") => "write \"simple\"",
        ("type", "task" | "job") => "write \"oneshot\"",
        ("type", "target" | "bundle" | "slice") => "write \"group\"",
        ("on_end", "exit" | "stop" | "poweroff" | "exit-force") => "write \"shutdown\"",
        ("restart.policy", "no" | "none" | "false" | "off") => "write \"never\"",
        ("restart.policy", "yes" | "true" | "on" | "any" | "unless-stopped") => "write \"always\"",
        ("restart.policy", "on-abnormal" | "on-abort" | "on-watchdog" | "unexpected") => {
            "write \"on-failure\"; `success_exit_codes` and `except_codes` say what is a failure"
        }
        ("stop.scope", "process") => "write \"main\"",
        ("stop.scope", "all" | "mixed" | "control-group" | "process-group") => {
            "write \"group\"; at the end of `timeout` all that is left is killed in any case"
        }
        ("logs.stdout" | "logs.stderr", "none" | "off" | "discard") => "write \"null\"",
        ("logs.stdout" | "logs.stderr", "journal" | "syslog" | "console" | "tty" | "stdout" | "stderr") => {
            "write \"inherit\", for uphold's own output"
        }
        (
            "start_timeout" | "shutdown_timeout",
            "infinity" | "inf" | "none" | "never" | "unlimited" | "off",
        ) => "write 0, for no limit",
        _ => return None,
    };
    Some(here)
}
