//! Where certificate, key and bundles come from.

mod ca;
mod csr;
mod files;
mod spiffe;
mod watched;

pub(crate) use ca::follow as follow_ca;
pub(crate) use files::FileSource;
pub(crate) use spiffe::follow;
pub(crate) use watched::Watched;

use crate::bundles::Bundles;
use crate::svid::Svid;

/// What a source gives: who we are, and whom we can check.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) svid: Svid,
    pub(crate) bundles: Bundles,
}
