//! The second signature of the living signer's checkpoints: asked for about once a second, before
//! publishing, outside of what publishing locks. A signer that does not answer soon keeps nothing
//! waiting: its checkpoint is published with one signature, and it is asked again.

use std::time::Duration;

use chancery_signer_api::{Cosign, Request, Response};

use super::{Service, lock};
use crate::link::{Connection, LinkError};
use crate::logs::Log;

/// How long publishing waits for the second signature. Making it takes a tenth of a millisecond; a
/// signer that works on a full frame takes longer than that, but not often longer than this.
const WITHIN: Duration = Duration::from_millis(250);

impl Service {
    /// Has the living signer cosign the latest committed checkpoint of its log, unless it did.
    pub async fn cosign(&self) {
        let living = self.attached().and_then(|signer| signer.log_id.parse().ok());
        let Some(log) = living.and_then(|id| self.logs.get(id)) else { return };
        let trouble = match tokio::time::timeout(WITHIN, self.ask_to_cosign(&log)).await {
            Ok(Ok(())) => String::new(),
            Ok(Err(why)) => why,
            // It is busy; asked again in a second.
            Err(_) => return,
        };
        let mut told = lock(&self.cosign_trouble);
        if !trouble.is_empty() && *told != trouble {
            tracing::error!(log = log.id_text(), "checkpoints get no second signature: {trouble}");
        }
        *told = trouble;
    }

    /// The same for a signer that was just attached, before the main job runs.
    ///
    /// # Errors
    /// [`LinkError`] when the line breaks; what the signer refuses is asked for again later.
    pub(super) fn cosign_first(
        &self,
        connection: &mut Connection,
        log: &Log,
    ) -> Result<(), LinkError> {
        let (Some(_), Some(asked)) = (log.cosigning_key(), log.uncosigned()) else { return Ok(()) };
        let request = Cosign { size: asked.size, root: asked.root.0.into() };
        let refused = match connection.ask(&Request::Cosign(request)) {
            Ok(Response::Cosigned(cosigned)) => log
                .take_cosignature(&asked, cosigned.signature.to_vec())
                .err()
                .map(|e| e.to_string()),
            Ok(other) => return Err(LinkError::out_of_step(&other)),
            // An older tree than it remembers: the next one is asked for soon.
            Err(LinkError::Fault(fault)) => Some(fault.detail),
            Err(e) => return Err(e),
        };
        if let Some(why) = refused {
            tracing::warn!(log = log.id_text(), "no second signature yet: {why}");
        }
        Ok(())
    }

    async fn ask_to_cosign(&self, log: &Log) -> Result<(), String> {
        let (Some(_), Some(asked)) = (log.cosigning_key(), log.uncosigned()) else { return Ok(()) };
        let request = Cosign { size: asked.size, root: asked.root.0.into() };
        match self.issuer.call(Request::Cosign(request)).await {
            Ok(Response::Cosigned(cosigned)) => {
                let taken = log.take_cosignature(&asked, cosigned.signature.to_vec());
                taken.map_err(|e| e.to_string())
            }
            Ok(Response::Fault(fault)) => Err(fault.detail),
            Ok(_) => Err("the signer answered out of step".to_owned()),
            // A signer that ended is told of elsewhere.
            Err(_) => Ok(()),
        }
    }
}
