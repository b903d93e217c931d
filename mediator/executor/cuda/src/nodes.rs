//! Names for graph nodes: the driver's handles are addresses of this process, so the guest gets numbers for them.

use std::collections::HashMap;

use cuda_api::CuResult;
use cuda_api::types::{CUresult, HANDLE_INDEX_MAX, HandleKind, pack_handle};

use crate::driver::Raw;

/// The nodes that were named so far. A name stays for the life of the session.
#[derive(Default)]
pub(crate) struct Nodes {
    by_raw: HashMap<Raw, u64>,
}

impl Nodes {
    /// The name of a node; 0 for none.
    pub(crate) fn name(&mut self, raw: Raw) -> CuResult<u64> {
        if raw == 0 {
            return Ok(0);
        }
        if let Some(name) = self.by_raw.get(&raw) {
            return Ok(*name);
        }
        let index = u32::try_from(self.by_raw.len()).ok().filter(|i| *i < HANDLE_INDEX_MAX);
        let name = pack_handle(HandleKind::GraphNode, 0, index.ok_or(CUresult::OUT_OF_MEMORY)?);
        self.by_raw.insert(raw, name);
        Ok(name)
    }

    /// The node with this name.
    pub(crate) fn raw(&self, name: u64) -> CuResult<Raw> {
        let found = self.by_raw.iter().find(|(_, known)| **known == name);
        found.map(|(raw, _)| *raw).ok_or(CUresult::INVALID_VALUE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_name_that_is_not_its_address() {
        let mut nodes = Nodes::default();
        let first = nodes.name(0x5555_0000).unwrap();
        assert_eq!(nodes.name(0x5555_0000), Ok(first));
        assert_ne!(nodes.name(0x5555_0040).unwrap(), first);
        assert_ne!(first, 0x5555_0000);
        assert_eq!(nodes.name(0), Ok(0));
    }
}
