//! The control socket as docs/api.md tells it, asked with curl.

use super::super::Scenario;
use super::home::{Home, QUICK, SOON, gateway_setup, wait_for_state};
use crate::ensure;
use crate::lab::cygnet::Cygnet;
use crate::lab::{Context, Failure, Lab, Result, wait_for};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "control-socket",
            "curl: status, up, down, rekey, reauthenticate, reload, and every refusal",
            with_curl,
        ),
        Scenario::new(
            "control-commands",
            "`cygnet up | down | status` and their exit codes",
            with_commands,
        ),
    ]
}

/// The status code and body of a request.
fn curl(cygnet: &Cygnet, as_: &[&str], arguments: &[&str]) -> Result<(u16, Value)> {
    let socket = cygnet.socket();
    let socket = socket.to_string_lossy();
    let fixed = [
        "curl",
        "-sS",
        "--max-time",
        "5",
        "-w",
        "\n%{http_code}",
        "--unix-socket",
        &*socket,
    ];
    let argv = as_.iter().chain(&fixed).chain(arguments).copied();
    let answer = cygnet.namespace().exec(argv)?;
    let (body, code) = answer
        .rsplit_once('\n')
        .ok_or_else(|| Failure::new(format!("curl said {answer}")))?;
    let body = serde_json::from_str(body).context(format!("no JSON: {body}"))?;
    Ok((code.trim().parse()?, body))
}

/// Whatever has a name or a state in the status, docs/api.md knows it.
fn names_are_documented(status: &Value) -> Result<()> {
    let path = crate::project::root().join("docs/api.md");
    let docs = fs::read_to_string(&path).context(path.display())?;
    let engine = &status["engine"];
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let (drops, counters) = (list(&engine["drops"]), list(&engine["ike_counters"]));
    ensure!(
        !counters.is_empty(),
        "there are no `ike_counters`: {status}"
    );
    let mut said: Vec<Value> = (drops.iter().chain(&counters))
        .map(|count| count["name"].clone())
        .collect();
    for connection in list(&engine["connections"]) {
        said.push(connection["state"].clone());
        for sa in list(&connection["ike_sas"]) {
            said.push(sa["state"].clone());
            said.extend(list(&sa["children"]).iter().map(|c| c["state"].clone()));
        }
    }
    for name in said {
        let name = name.as_str().unwrap_or_default();
        ensure!(
            docs.contains(&format!("`{name}`")),
            "docs/api.md does not know `{name}`"
        );
    }
    // The other way round: all counters that it promises are there.
    let promised = docs
        .lines()
        .skip_while(|line| !line.starts_with("- `ike_counters`"));
    let promised = promised.take_while(|line| !line.starts_with("- `engine`"));
    for name in promised.flat_map(|line| line.split('`').skip(1).step_by(2)) {
        let there = counters.iter().any(|count| count["name"] == name);
        ensure!(
            there || name == "ike_counters",
            "docs/api.md promises the counter `{name}`"
        );
    }
    Ok(())
}

fn with_curl(lab: &mut Lab) -> Result<String> {
    let home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let box_ = &home.gateway;
    let get = |path: &str| curl(box_, &[], &[&format!("http://cygnet{path}")]);
    let post = |path: &str, body: Option<&str>| {
        let url = format!("http://cygnet{path}");
        match body {
            Some(body) => curl(box_, &[], &["-X", "POST", "-d", body, &url]),
            None => curl(box_, &[], &["-X", "POST", &url]),
        }
    };

    let (code, status) = get("/v1/status")?;
    ensure!(code == 200, "status: {code}");
    for key in [
        "version",
        "config",
        "processes",
        "uptime_s",
        "engine_restarts",
        "guard",
        "warnings",
        "engine",
        "leases",
        "dhcp",
    ] {
        ensure!(
            status.get(key).is_some(),
            "the status has no `{key}`: {status}"
        );
    }
    ensure!(status["guard"] == "on", "guard is {}", status["guard"]);
    let connection = &status["engine"]["connections"][0];
    let sa = &connection["ike_sas"][0];
    let child = &sa["children"][0];
    for (object, keys) in [
        (
            connection,
            &[
                "name",
                "state",
                "reason",
                "retry_in_s",
                "packets_in",
                "bytes_in",
                "packets_out",
                "bytes_out",
                "ike_rekeys",
                "child_rekeys",
                "ike_sas",
            ][..],
        ),
        (
            sa,
            &[
                "id",
                "initiator_spi",
                "responder_spi",
                "initiator",
                "state",
                "peer",
                "local",
                "remote",
                "nat_local",
                "nat_remote",
                "suite",
                "virtual_addresses",
                "dns",
                "age_s",
                "rekey_in_s",
                "children",
            ],
        ),
        (
            child,
            &[
                "id",
                "name",
                "state",
                "spi_in",
                "spi_out",
                "suite",
                "local",
                "remote",
                "packets_in",
                "bytes_in",
                "packets_out",
                "bytes_out",
                "mtu",
                "path_mtu",
                "age_s",
                "rekey_in_s",
            ],
        ),
    ] {
        for key in keys {
            ensure!(
                object.get(key).is_some(),
                "docs/api.md promises `{key}`: {object}"
            );
        }
    }
    names_are_documented(&status)?;
    ensure!(
        sa["nat_local"] == true,
        "the router's NAT is not seen: {sa}"
    );
    let (_, at_server) = curl(&home.server, &[], &["http://cygnet/v1/status"])?;
    let lease = &at_server["leases"][0];
    ensure!(
        lease["identity"] == "box.lab"
            && lease["online"] == true
            && lease["addresses"][0].is_string(),
        "the server's lease: {lease}"
    );

    let done = |answer: (u16, Value), what: &str| -> Result<()> {
        ensure!(
            answer.0 == 200 && answer.1["ok"] == true,
            "{what}: {answer:?}"
        );
        Ok(())
    };
    let refused = |answer: (u16, Value), code: u16, word: &str| -> Result<()> {
        let said = answer.1["error"].as_str().unwrap_or_default();
        ensure!(
            answer.0 == code && said.contains(word) && !said.contains('\n'),
            "expected {code} and `{word}`: {answer:?}"
        );
        Ok(())
    };
    let connection = "/v1/connections/home";
    let spi = |of: &str| -> Result<String> {
        Ok(get("/v1/status")?.1["engine"]["connections"][0]["ike_sas"][0][of].to_string())
    };
    let (old, child_before) = (spi("initiator_spi")?, child["spi_in"].clone());
    let name = child["name"].as_str().unwrap_or_default();
    let body = format!("{{\"child\": \"{name}\"}}");
    done(
        post(&format!("{connection}/rekey"), Some(&body))?,
        "rekey a child",
    )?;
    wait_for("the child is rekeyed", SOON, || {
        let children = home.gateway.children("home")?;
        Ok((children.len() == 1 && child_before != children[0].spi_in).then_some(()))
    })?;
    done(
        post(&format!("{connection}/rekey"), None)?,
        "rekey the IKE SA",
    )?;
    wait_for("the IKE SA is rekeyed", SOON, || {
        Ok((spi("initiator_spi")? != old).then_some(()))
    })?;
    done(
        post(&format!("{connection}/reauthenticate"), None)?,
        "reauthenticate",
    )?;
    done(post(&format!("{connection}/down"), None)?, "down")?;
    wait_for_state(box_, "home", "down")?;
    done(post(&format!("{connection}/up"), None)?, "up")?;
    wait_for_state(box_, "home", "up")?;
    done(post("/v1/reload", None)?, "reload")?;

    refused(get("/v1/nothing")?, 404, "docs/api.md")?;
    refused(post("/v1/connections/nobody/up", None)?, 404, "home")?;
    refused(
        post(&format!("{connection}/sideways"), None)?,
        404,
        "expected up, down",
    )?;
    refused(
        post(&format!("{connection}/down"), Some("{\"child\": \"x\"}"))?,
        404,
        name,
    )?;
    refused(
        post(&format!("{connection}/up"), Some("{\"chidl\": 1}"))?,
        400,
        "expected",
    )?;
    refused(
        post(&format!("{connection}/up"), Some("no json"))?,
        400,
        "expected",
    )?;
    let server = curl(
        &home.server,
        &[],
        &["-X", "POST", "http://cygnet/v1/connections/server/up"],
    )?;
    refused(server, 409, "waits for")?;
    fs::write(box_.config_path(), "colour = 1\n")?;
    refused(post("/v1/reload", None)?, 422, "colour")?;

    // Nobody cannot even get at the socket; where somebody opened its directory, nobody is told.
    let nobody = [
        "setpriv",
        "--reuid",
        "nobody",
        "--regid",
        "nogroup",
        "--clear-groups",
        "--",
    ];
    ensure!(
        curl(box_, &nobody, &["http://cygnet/v1/status"]).is_err(),
        "nobody reaches the socket through a directory of mode 0700"
    );
    fs::set_permissions(
        box_.directory().join("run"),
        fs::Permissions::from_mode(0o755),
    )?;
    fs::set_permissions(box_.socket(), fs::Permissions::from_mode(0o666))?;
    for arguments in [
        &["http://cygnet/v1/status"][..],
        &["-X", "POST", "http://cygnet/v1/connections/home/down"],
        &["-X", "POST", "http://cygnet/v1/reload"],
        &["http://cygnet/v1/nothing"],
    ] {
        refused(curl(box_, &nobody, arguments)?, 403, "root")?;
    }
    ensure!(
        home.gateway.connection("home")?.state == "up",
        "nobody has taken the tunnel down"
    );
    Ok("every request of docs/api.md and every refusal".to_owned())
}

fn with_commands(lab: &mut Lab) -> Result<String> {
    let mut home = Home::start(lab, &gateway_setup(QUICK, ""))?;
    let expect = |arguments: &[&str], code: i32, words: &[&str]| -> Result<()> {
        let finished = home.gateway.control(arguments)?;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        ensure!(
            finished.status.code() == Some(code) && words.iter().all(|word| said.contains(word)),
            "cygnet {} ended with {:?}, expected {code} and {words:?}: {said}",
            arguments.join(" "),
            finished.status
        );
        Ok(())
    };
    expect(
        &["status"],
        0,
        &["home: up", "guard on", "NAT at both ends"],
    )?;
    expect(&["up", "home"], 0, &["home is up"])?;
    expect(&["down", "home"], 0, &["home is down"])?;
    expect(&["status"], 0, &["home: down"])?;
    expect(&["up", "nobody"], 2, &["no tunnel `nobody`", "home"])?;
    expect(&["up"], 0, &["home is up"])?;
    expect(&["down", "home", "--child", "nobody"], 2, &["nobody"])?;
    // A tunnel that cannot come up: 1, with the reason.
    home.server.stop()?;
    let finished = home.gateway.control(&["down", "home"])?;
    ensure!(
        finished.success(),
        "down without a peer: {}",
        finished.stderr
    );
    let finished = home.gateway.control(&["up", "home", "--wait", "2"])?;
    ensure!(
        finished.status.code() == Some(1)
            && finished.stderr.contains("home is not up after 2 s: ")
            && finished
                .stderr
                .ends_with("; `cygnet doctor` looks for the cause\n"),
        "up without a peer: {:?} {}",
        finished.status,
        finished.stderr
    );
    let reason = finished.stderr.trim().to_owned();
    home.gateway.stop()?;
    let finished = home.gateway.control(&["status"])?;
    ensure!(
        finished.status.code() == Some(1) && finished.stderr.contains("is cygnet running?"),
        "status without cygnet: {:?} {}",
        finished.status,
        finished.stderr
    );
    Ok(reason)
}
