//! The README's walk-through, with Debian's nginx.

use crate::dsl::*;

#[test]
fn the_walk_through_of_liveness_and_readiness_on_nginx() {
    if !have("nginx") {
        return skip("nginx is not installed");
    }
    let uphold = Uphold::new();
    let dir = uphold.dir.path().display().to_string();
    std::fs::set_permissions(uphold.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(uphold.path("www")).unwrap();
    let index = uphold.path("www/index.html");
    let ready = uphold.path("ready");
    std::fs::write(&index, "hello\n").unwrap();
    std::fs::write(&ready, "").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::fs::write(
        uphold.path("nginx.conf"),
        format!(
            "pid {dir}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n  access_log off;\n  client_body_temp_path {dir}/body;\n  proxy_temp_path {dir}/proxy;\n  fastcgi_temp_path {dir}/fastcgi;\n  uwsgi_temp_path {dir}/uwsgi;\n  scgi_temp_path {dir}/scgi;\n  server {{ listen 127.0.0.1:{port}; root {dir}/www; }}\n}}\n"
        ),
    )
    .unwrap();
    let uphold = uphold
        .unit(
            "nginx",
            &format!(
                "command = [\"/usr/sbin/nginx\", \"-c\", \"{dir}/nginx.conf\", \"-g\", \"daemon off;\"]
ports = {{ http = {port} }}
[restart]
delay = \"300ms\"
max_delay = \"300ms\"
[liveness]
http = {{ port = \"http\" }}
period = \"200ms\"
initial_delay = \"1s\"
[readiness]
exec = {{ command = [\"cat\", \"{dir}/ready\"] }}
period = \"100ms\"
failure_threshold = 1"
            ),
        )
        .start();
    uphold.until_view("nginx", "ready", |view| view["ready"] == true);
    // Readiness goes and comes back, without a restart.
    std::fs::remove_file(&ready).unwrap();
    uphold.until_view("nginx", "unready", |view| view["ready"] == false && view["state"] == "running");
    std::fs::write(&ready, "").unwrap();
    uphold.until_view("nginx", "ready again", |view| view["ready"] == true && view["restarts"] == 0);
    // Liveness: 403 without index.html.
    std::fs::remove_file(&index).unwrap();
    uphold.until_event("nginx", "Unhealthy Liveness probe failed: HTTP probe failed with statuscode: 403");
    uphold.until_view("nginx", "a restart", |view| view["restarts"].as_u64() >= Some(1));
    std::fs::write(&index, "hello again\n").unwrap();
    uphold
        .until_view("nginx", "running and ready", |view| view["state"] == "running" && view["ready"] == true);
    let (_, out, _) = uphold.ctl(&["describe", "nginx"]);
    for part in [
        "Last State:",
        "Reason:       LivenessFailed",
        "Liveness probe failed: HTTP probe failed with statuscode: 403",
        "Process nginx failed liveness probe, will be restarted",
    ] {
        assert!(out.contains(part), "`{part}` is not in:\n{out}");
    }
    assert_eq!(uphold.ctl(&["stop", "nginx"]).0, 0);
}
