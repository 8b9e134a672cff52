//! What the operator wants, by the control socket or by a signal.

use std::os::fd::OwnedFd;
use std::path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use super::control::{ControlRequest, Refusal};
use super::engine::Engine;
use super::start::Loaded;
use super::{Done, Supervisor, admission, devices, expiry, pools, start};
use crate::api::{EngineStatus, Guard, LeaseStatus, Processes, Status};
use crate::ipc::{Bundle, Control, ToEngine, TunRole};

/// How long `status` waits for the engine.
const STATUS_MAX: Duration = Duration::from_secs(2);

impl Supervisor {
    pub(super) async fn control(&mut self, request: ControlRequest) {
        match request {
            ControlRequest::Status(reply) => {
                self.next_status += 1;
                let request = self.next_status;
                if !self.tell(&ToEngine::Status { request }) {
                    self.network.report(self.status(None), reply);
                    return;
                }
                self.waiting_status.insert(request, reply);
                let done = self.done.clone();
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(STATUS_MAX).await;
                    let _ = done.send(Done::StatusLate { request });
                });
            }
            ControlRequest::Engine(control, reply) => {
                let _ = reply.send(self.order(control));
            }
            ControlRequest::Reload(reply) => {
                let _ = reply.send(self.reload().await);
            }
            ControlRequest::Devices(reply) => self.network.devices(self.dhcp.names(), reply),
            ControlRequest::Device(order, reply) => self.network.order(order, reply),
        }
    }

    fn order(&mut self, control: Control) -> Result<(), Refusal> {
        let policy = &self.loaded.config.policy;
        let name = control.connection();
        let Some(connection) = policy.connection(name) else {
            let known: Vec<&str> = policy.connections.iter().map(|c| c.name.as_str()).collect();
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!(
                    "there is no tunnel `{name}`; configured: {}",
                    if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    }
                ),
            ));
        };
        if let Some(child) = control.child()
            && !connection.children.iter().any(|c| c.name == child)
        {
            let known: Vec<&str> = connection
                .children
                .iter()
                .map(|c| c.name.as_str())
                .collect();
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!(
                    "tunnel `{name}` has no child `{child}`; it has: {}",
                    known.join(", ")
                ),
            ));
        }
        // A child can be added to what the peer has begun; the whole cannot be begun from here.
        if matches!(control, Control::Up { child: None, .. })
            && connection.remote == cygnet_ike::policy::Remote::Any
        {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                format!("`{name}` waits for its peer to call: there is no address to call it at"),
            ));
        }
        if self.tell(&ToEngine::Control(control)) {
            Ok(())
        } else {
            Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the engine is being restarted; try again in a moment",
            ))
        }
    }

    pub(super) async fn reload(&mut self) -> Result<(), Refusal> {
        let Err(why) = self.reload_all().await else {
            tracing::info!("configuration read again");
            return Ok(());
        };
        let told = match admission::read_again(&self.path, &self.loaded, &self.secrets) {
            Ok(None) => why,
            Ok(Some(loaded)) => {
                self.take_up(loaded, Vec::new(), &[]);
                tracing::info!("revocations, passwords and devices read again; nothing else");
                format!("{why} (revocations, passwords and devices were taken up all the same)")
            }
            Err(error) => format!("{why} (nor were revocations, passwords and devices: {error})"),
        };
        Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, told))
    }

    async fn reload_all(&mut self) -> Result<(), String> {
        let loaded = start::load(&self.path).map_err(|e| e.to_string())?;
        if loaded.config.daemon != self.loaded.config.daemon {
            return Err(
                "the [daemon] section changed, which only a restart can apply: `systemctl restart cygnet`"
                    .to_owned(),
            );
        }
        // Devices behind the old one would be open from now on; at a start a card may come late.
        let before = self.loaded.config.gateway.as_ref();
        let is_new = |name: &String| before.is_none_or(|gateway| !gateway.lan.contains(name));
        let missing = super::network::lan_missing(&loaded.config).await;
        if let Some((_, told)) = missing.into_iter().find(|(name, _)| is_new(name)) {
            return Err(format!(
                "{told}; plug it in first, or start cygnet with this: `systemctl restart cygnet-guard cygnet`"
            ));
        }
        let (tuns, fds) = self.network.reconfigure(&loaded.config).await?;
        self.take_up(loaded, tuns, &fds);
        Ok(())
    }

    /// Obeys what was read, here and in the engine.
    fn take_up(&mut self, mut loaded: Loaded, tuns: Vec<TunRole>, fds: &[OwnedFd]) {
        let replaced = loaded.secrets.replaced_since(&self.secrets);
        self.secrets = Rc::new(std::mem::take(&mut loaded.secrets));
        self.loaded = loaded;
        self.crls.configure(&self.loaded.config, Instant::now());
        self.crls.fill(&mut self.loaded.bundle);
        self.clock.configure(&self.loaded.config);
        self.date_may_differ();
        self.hooks.configure(&self.loaded.config);
        self.history.configure(self.loaded.config.tunnels.keys());
        self.run_hooks();
        self.dhcp.look_again();
        self.tell_expiry();
        self.leases.configure(pools(&self.loaded));
        self.speedtest.configure(&self.loaded.config, self.user);
        let bundle: Bundle = self.loaded.bundle.clone();
        let reload = ToEngine::Reload {
            bundle,
            tuns,
            replaced,
        };
        self.tell_with(&reload, fds);
        self.fetch_crls();
        self.configure_dns();
    }

    /// The report, but for what the kernel has to be asked for.
    pub(super) fn status(&self, mut engine: Option<EngineStatus>) -> Status {
        let leases = self.leases.list();
        let mut leases: Vec<LeaseStatus> = leases
            .map(|(identity, addresses, online)| LeaseStatus {
                identity: identity.to_owned(),
                user: None,
                device: None,
                addresses,
                online,
            })
            .collect();
        if let Some(server) = &self.loaded.config.server {
            devices::name(&server.devices, engine.as_mut(), &mut leases);
        }
        let mut warnings = expiry::warnings(&self.loaded.config, self.clock.date());
        warnings.extend(self.clock_warnings());
        warnings.extend(self.crls.warnings());
        warnings.extend(self.dns_warnings());
        warnings.extend(self.dhcp.warnings());
        let gateway = self.loaded.config.gateway.as_ref();
        let dhcp = gateway.and_then(|gateway| gateway.dhcp.as_ref());
        let advertise = gateway.and_then(|gateway| gateway.advertise.as_ref());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: path::absolute(&self.path).unwrap_or_else(|_| self.path.clone()),
            processes: Processes {
                supervisor: std::process::id(),
                engine: self.engine.as_ref().map(Engine::pid),
            },
            uptime_s: self.started.elapsed().as_secs(),
            engine_restarts: self.restarts,
            // Filled in by whoever looks at the kernel, who has more to warn of.
            guard: Guard::NotConfigured,
            lets_out: false,
            let_out: false,
            warnings,
            clock: self.clock_status(),
            engine,
            dns: self.dns_status(),
            direct_domains: Vec::new(),
            leases,
            history: self.history.list(self.clock.date().ok(), Instant::now()),
            dhcp: dhcp.map(|_| self.dhcp.status()),
            advertise: advertise.map(|section| self.dhcp.advertised(&section.interface)),
        }
    }
}
