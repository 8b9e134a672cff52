//! The payloads of one message, sorted by what they are for. Order does not matter (RFC 7296
//! §2.5), repetition only where a payload may be repeated.

use cygnet_wire::auth::AuthPayload;
use cygnet_wire::cert::CertEncoding;
use cygnet_wire::cp::CpPayload;
use cygnet_wire::delete::DeletePayload;
use cygnet_wire::eap::EapPayload;
use cygnet_wire::id::IdPayload;
use cygnet_wire::ke::KePayload;
use cygnet_wire::notify::{NotifyPayload, NotifyType};
use cygnet_wire::payload::Payload;
use cygnet_wire::sa::SaPayload;
use cygnet_wire::ts::TsPayload;

use crate::refused::Client;

/// Certificates of one peer that are looked at; a chain longer than this is not ours to judge.
const MAX_CERTIFICATES: usize = 16;

/// What a message says.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) sa: Option<SaPayload>,
    pub(crate) ke: Option<KePayload<'static>>,
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) idi: Option<IdPayload>,
    pub(crate) idr: Option<IdPayload>,
    /// X.509, DER, in the order sent.
    pub(crate) certificates: Vec<Vec<u8>>,
    /// Whether certificates were asked for.
    pub(crate) wants_certificates: bool,
    pub(crate) auth: Option<AuthPayload<'static>>,
    pub(crate) eap: Option<EapPayload<'static>>,
    pub(crate) notifies: Vec<NotifyPayload<'static>>,
    pub(crate) deletes: Vec<DeletePayload>,
    pub(crate) tsi: Option<TsPayload>,
    pub(crate) tsr: Option<TsPayload>,
    pub(crate) cp: Option<CpPayload<'static>>,
    /// Whose implementation the peer says it is.
    pub(crate) client: Option<Client>,
}

impl Contents {
    pub(crate) fn of(payloads: Vec<Payload<'_>>) -> Self {
        let mut contents = Self::default();
        for payload in payloads {
            match payload.into_owned() {
                Payload::Sa(p) => contents.sa = contents.sa.or(Some(p)),
                Payload::Ke(p) => contents.ke = contents.ke.or(Some(p)),
                Payload::Nonce(p) => contents.nonce = contents.nonce.or(Some(p.data.into_owned())),
                Payload::Idi(p) => contents.idi = contents.idi.or(Some(p)),
                Payload::Idr(p) => contents.idr = contents.idr.or(Some(p)),
                Payload::Cert(p) => {
                    if p.encoding == CertEncoding::X509_SIGNATURE
                        && contents.certificates.len() < MAX_CERTIFICATES
                    {
                        contents.certificates.push(p.data.into_owned());
                    }
                }
                Payload::CertReq(_) => contents.wants_certificates = true,
                Payload::Auth(p) => contents.auth = contents.auth.or(Some(p)),
                Payload::Notify(p) => contents.notifies.push(p),
                Payload::Delete(p) => contents.deletes.push(p),
                Payload::Tsi(p) => contents.tsi = contents.tsi.or(Some(p)),
                Payload::Tsr(p) => contents.tsr = contents.tsr.or(Some(p)),
                Payload::Cp(p) => contents.cp = contents.cp.or(Some(p)),
                Payload::Eap(p) => contents.eap = contents.eap.or(Some(p)),
                Payload::Vendor(p) => contents.client = contents.client.or(Client::of(&p.vid)),
                Payload::Unknown { .. } => {}
            }
        }
        contents
    }

    pub(crate) fn notify(&self, ty: NotifyType) -> Option<&NotifyPayload<'static>> {
        self.notifies.iter().find(|n| n.ty == ty)
    }

    pub(crate) fn has(&self, ty: NotifyType) -> bool {
        self.notify(ty).is_some()
    }

    /// The first notification of the error range.
    pub(crate) fn error(&self) -> Option<&NotifyPayload<'static>> {
        self.notifies.iter().find(|n| n.ty.is_error())
    }
}
