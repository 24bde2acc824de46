use crate::dsl::*;

#[test]
fn a_child_has_default_signals_an_empty_mask_and_three_descriptors() {
    let text = "command = [\"sh\", \"-c\", \"grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls /proc/self/fd | tr '\\\\n' ' '; echo; exec sleep 600\"]";
    let uphold = Uphold::with_unit("web", text);
    uphold.eventually("four lines", |uphold| uphold.log("web").len() == 4);
    let log = uphold.log("web");
    assert!(log[0].ends_with("0000000000000000"), "{log:?}");
    assert!(log[1].ends_with("0000000000000000"), "{log:?}");
    // ls has the directory itself open as 3.
    assert_eq!(log[3].trim(), "0 1 2 3");
}

#[test]
fn environment_directory_umask_and_limits_are_as_the_unit_says() {
    let uphold = Uphold::new();
    let dir = uphold.path("made").display().to_string();
    let file = uphold.path("env").display().to_string();
    std::fs::write(&file, "# comment\nexport FROM_FILE=\"a b\"\nPORT=2\n").unwrap();
    let uphold = uphold
        .unit(
            "web",
            &format!(
                "command = [\"sh\", \"-c\", \"pwd; echo $PORT $FROM_FILE $NAME; umask; ulimit -n; env | grep -c NOTIFY; exec sleep 600\"]
working_dir = \"{dir}\"
directories = [{{ path = \"{dir}\", mode = \"0700\" }}]
environment = {{ PORT = \"1\", NAME = \"{{name}}\" }}
environment_files = [\"{file}\", \"-/nonexistent.env\"]
umask = \"027\"
[limits]
nofile = [100, 200]"
            ),
        )
        .start();
    uphold.eventually("five lines", |uphold| uphold.log("web").len() == 5);
    let log = uphold.log("web");
    assert_eq!(log[0], dir);
    assert_eq!(log[1..], ["2 a b web", "0027", "100", "0"]);
}

#[test]
fn a_service_runs_as_its_user_with_that_users_groups_and_home() {
    if !is_root() {
        return skip("only root can become another user");
    }
    let uphold = Uphold::with_unit(
        "web",
        "command = [\"sh\", \"-c\", \"id -un; id -gn; echo $HOME $USER $LOGNAME; exec sleep 600\"]\nuser = \"www-data\"",
    );
    uphold.eventually("three lines", |uphold| uphold.log("web").len() == 3);
    assert_eq!(uphold.log("web"), ["www-data", "www-data", "/var/www www-data www-data"]);
}

#[test]
fn a_set_up_that_fails_names_its_stage_and_what_was_asked() {
    let uphold = Uphold::new()
        .unit("user", "command = [\"true\"]\nuser = \"wwww-data\"")
        .unit("dir", "command = [\"true\"]\nworking_dir = \"/nonexistent/dir\"")
        .unit("cmd", "command = [\"no-such-program\"]")
        .unit("perm", "command = [\"/etc/passwd\"]")
        .start();
    for (unit, words) in [
        ("user", vec!["user", "wwww-data"]),
        ("dir", vec!["/nonexistent/dir"]),
        ("cmd", vec!["no-such-program"]),
        ("perm", vec!["/etc/passwd", "ermission denied"]),
    ] {
        uphold.until_event(unit, "SpawnFailed");
        let view = uphold.view(unit);
        let message = view["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.starts_with(&format!("cannot start {unit}: ")), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert_eq!(view["reason"], "SpawnFailed");
    }
    let codes = ["cmd", "perm"].map(|unit| uphold.view(unit)["last_exit"]["code"].as_i64());
    assert_eq!(codes, [Some(127), Some(126)]);
}
