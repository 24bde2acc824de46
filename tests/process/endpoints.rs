//! The files for a proxy in front of services.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::dsl::*;

/// What stands in the file; null where there is none.
fn endpoints(uphold: &Uphold, unit: &str) -> Value {
    let text = fs::read_to_string(uphold.path(&format!("run/endpoints/{unit}.json")));
    text.map_or(Value::Null, |text| serde_json::from_str(&text).expect("a whole file, whenever it is read"))
}

fn until(uphold: &Uphold, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    uphold.eventually(what, |uphold| is(&endpoints(uphold, "web")));
    endpoints(uphold, "web")
}

#[test]
fn a_proxy_reads_who_is_ready_from_the_start_of_a_unit_to_its_unload() {
    let uphold = Uphold::new();
    fs::create_dir_all(uphold.path("run/endpoints")).unwrap();
    fs::write(uphold.path("run/endpoints/stale.json"), "{}").unwrap();
    fs::set_permissions(uphold.path("run/endpoints"), fs::Permissions::from_mode(0o700)).unwrap();
    let ready = uphold.path("ready");
    let mut uphold = uphold
        .unit(
            "web",
            &format!(
                "command = [\"sh\", \"-c\", \"trap 'while [ -e {0} ]; do sleep 0.02; done; exit 0' TERM; while :; do sleep 0.02; done\"]
ports = {{ http = 8080 }}
[readiness]
exec = {{ command = [\"test\", \"-e\", \"{0}\"] }}
period = \"20ms\"
failure_threshold = 1",
                ready.display()
            ),
        )
        .unit("idle", "command = [\"sleep\", \"600\"]\nautostart = false")
        .unit("job", "type = \"oneshot\"\ncommand = [\"true\"]")
        .under(&["sh", "-c", "umask 077; exec \"$@\"", "sh"])
        .start();
    let first = until(&uphold, "it starts", |told| told["reason"] == "Starting");
    let since = &first["since"];
    let addresses = json!([{"host": "127.0.0.1", "port": 8080}]);
    let expected = json!({"unit": "web", "ready": false, "serving": false, "terminating": false,
        "addresses": addresses, "since": since, "reason": "Starting"});
    assert_eq!(first, expected);
    let mode = |name: &str| fs::metadata(uphold.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("run/endpoints"), mode("run/endpoints/web.json")), (0o755, 0o644));
    fs::write(&ready, "").unwrap();
    let told = until(&uphold, "ready", |told| told["ready"] == true && told["serving"] == true);
    assert!(told["reason"].is_null() && told["since"] != *since, "{told}");
    // It is not ready from the moment of the stop, and serves for as long as its probe says so.
    assert_eq!(uphold.ctl(&["stop", "--no-wait", "web"]).0, 0);
    let told = until(&uphold, "terminating", |told| told["terminating"] == true);
    assert_eq!((&told["ready"], &told["serving"]), (&json!(false), &json!(true)), "{told}");
    fs::remove_file(&ready).unwrap();
    let told = until(&uphold, "gone", |told| told["terminating"] == false);
    assert_eq!((&told["serving"], &told["reason"]), (&json!(false), &json!("StoppedByOperator")), "{told}");
    // Neither what never started nor what is no service, nor what lay there before, has a file.
    uphold.until("job", "completed");
    let files = |uphold: &Uphold| {
        let entries = fs::read_dir(uphold.path("run/endpoints")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(files(&uphold), ["web.json"]);
    fs::remove_file(uphold.path("units/web.toml")).unwrap();
    assert_eq!(uphold.ctl(&["daemon-reload"]).0, 0);
    uphold.eventually("unloaded", |uphold| files(uphold).is_empty());
    assert_eq!(uphold.ctl(&["start", "idle"]).0, 0);
    uphold.eventually("another one", |uphold| endpoints(uphold, "idle")["ready"] == true);
    uphold.signal(Signal::SIGTERM);
    assert!(uphold.exit().success());
    assert!(files(&uphold).is_empty(), "of an uphold that has ended");
}

#[test]
fn endpoints_that_cannot_be_written_are_said_once_and_written_when_they_can_be() {
    let uphold = Uphold::new();
    fs::create_dir(uphold.path("run")).unwrap();
    fs::write(uphold.path("run/endpoints"), "in the way").unwrap();
    let uphold = uphold.unit("web", "command = [\"sleep\", \"600\"]").start();
    uphold.until("web", "running");
    uphold.eventually("it is said", |uphold| uphold.stderr().contains("cannot write endpoints to "));
    fs::remove_file(uphold.path("run/endpoints")).unwrap();
    until(&uphold, "ready", |told| told["ready"] == true);
    assert_eq!(uphold.stderr().matches("cannot write endpoints").count(), 1, "{}", uphold.stderr());
}

#[test]
fn what_proxies_read_stays_and_is_true_over_a_kill_and_an_upgrade() {
    let text = "command = [\"sleep\", \"600\"]\nports = { http = 8080 }\n";
    let mut uphold = Uphold::new().unit("web", text).unit("gone", text).start();
    let before = until(&uphold, "ready", |told| told["ready"] == true);
    uphold.eventually("the other, too", |uphold| endpoints(uphold, "gone")["ready"] == true);
    assert_eq!(uphold.ctl(&["upgrade"]).0, 0);
    uphold.kill();
    assert_eq!(endpoints(&uphold, "web"), before);
    fs::remove_file(uphold.path("units/gone.toml")).unwrap();
    uphold.again();
    assert_eq!(endpoints(&uphold, "web"), before);
    assert_eq!(uphold.ctl(&["stop", "gone"]).0, 0);
    uphold.eventually("what is unloaded goes", |uphold| !uphold.path("run/endpoints/gone.json").exists());
    uphold.kill_main("web", Signal::SIGKILL);
    let after =
        until(&uphold, "ready again", |told| told["ready"] == true && told["since"] != before["since"]);
    assert_eq!(after["addresses"], before["addresses"]);
}
