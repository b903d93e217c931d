//! A graph node's parameters: CUDA's own structures (layouts from the CUDA Driver API's documentation), and the words in
//! which a node travels.
//!
//! In the structures an address, a handle and a pointer are all 64-bit numbers; whoever fills one in says what they mean on
//! its side. On the wire there are no pointers: what a structure points to follows it.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used)]

use zerocopy::IntoBytes as _;

use crate::CuResult;
use crate::types::{CUmemAccessDesc, CUresult};
use crate::wire::{Pod, rows};

/// CUgraphNodeType.
#[allow(missing_docs)]
pub mod kind {
    pub const KERNEL: u32 = 0;
    pub const MEMCPY: u32 = 1;
    pub const MEMSET: u32 = 2;
    pub const HOST: u32 = 3;
    pub const GRAPH: u32 = 4;
    pub const EMPTY: u32 = 5;
    pub const WAIT_EVENT: u32 = 6;
    pub const EVENT_RECORD: u32 = 7;
    pub const MEM_ALLOC: u32 = 10;
    pub const MEM_FREE: u32 = 11;
    pub const BATCH_MEM_OP: u32 = 12;
    pub const CONDITIONAL: u32 = 13;
}

/// What a list of a graph's or node's surroundings is of ([`crate::calls::graph::row::vgpuGraphList`]).
#[allow(missing_docs)]
pub mod list {
    pub const ROOTS: u32 = 0;
    pub const EDGES: u32 = 1;
    pub const DEPENDENCIES: u32 = 2;
    pub const DEPENDENTS: u32 = 3;
    /// Entries of a list in one reply at most: up to three words each.
    pub const ENTRIES_MAX: usize = 1024;
}

/// CUmemorytype.
#[allow(missing_docs)]
pub mod memory_type {
    pub const HOST: u32 = 1;
    pub const DEVICE: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const UNIFIED: u32 = 4;
}

/// Operations of a batch at most, and access descriptions of an allocation: their arrays travel in one frame.
pub const OPERATIONS_MAX: usize = 256;
/// Body graphs of a conditional node at most.
pub const BODIES_MAX: usize = 256;

macro_rules! layouts {
    ($($(#[doc = $doc:literal])+ $size:literal pub struct $name:ident { $($field:ident: $ty:ty,)+ })+) => { $(
        $(#[doc = $doc])+
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        #[allow(missing_docs)]
        pub struct $name { $(pub $field: $ty,)+ }
        impl Pod for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
    )+ };
}

layouts! {
    /// CUDA_KERNEL_NODE_PARAMS_v2; the first 56 bytes are version 1.
    72 pub struct KernelNode {
        func: u64,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        padding: u32,
        kernel_params: u64,
        extra: u64,
        kern: u64,
        ctx: u64,
    }

    /// One end of a CUDA_MEMCPY3D.
    88 pub struct CopyEnd {
        x_bytes: u64,
        y: u64,
        z: u64,
        lod: u64,
        memory_type: u32,
        padding: u32,
        host: u64,
        device: u64,
        array: u64,
        reserved: u64,
        pitch: u64,
        height: u64,
    }

    /// CUDA_MEMCPY3D.
    200 pub struct Copy3D {
        src: CopyEnd,
        dst: CopyEnd,
        width_bytes: u64,
        height: u64,
        depth: u64,
    }

    /// CUDA_MEMCPY_NODE_PARAMS.
    216 pub struct MemcpyNode {
        flags: i32,
        reserved: i32,
        ctx: u64,
        copy: Copy3D,
    }

    /// CUDA_MEMSET_NODE_PARAMS_v2; the first 40 bytes are version 1.
    48 pub struct MemsetNode {
        dst: u64,
        pitch: u64,
        value: u32,
        element_bytes: u32,
        width: u64,
        height: u64,
        ctx: u64,
    }

    /// CUDA_CHILD_GRAPH_NODE_PARAMS.
    16 pub struct ChildNode {
        graph: u64,
        ownership: u32,
        padding: u32,
    }

    /// CUmemPoolProps.
    88 pub struct PoolProps {
        alloc_type: u32,
        handle_types: u32,
        location_type: u32,
        location_id: i32,
        win32: u64,
        max_size: u64,
        usage: u16,
        reserved: [u8; 32],
        reserved_2: [u8; 22],
    }

    /// CUDA_MEM_ALLOC_NODE_PARAMS.
    120 pub struct MemAllocNode {
        props: PoolProps,
        access: u64,
        access_count: u64,
        bytes: u64,
        dptr: u64,
    }

    /// CUDA_BATCH_MEM_OP_NODE_PARAMS.
    32 pub struct BatchNode {
        ctx: u64,
        count: u32,
        padding: u32,
        operations: u64,
        flags: u32,
        padding_2: u32,
    }

    /// CUstreamBatchMemOpParams of a wait or write. A barrier has its flags right behind the operation.
    48 pub struct MemOp {
        operation: u32,
        barrier_flags: u32,
        address: u64,
        value: u64,
        flags: u32,
        padding: u32,
        alias: u64,
        rest: u64,
    }

    /// CUDA_CONDITIONAL_NODE_PARAMS.
    32 pub struct ConditionalNode {
        handle: u64,
        kind: u32,
        size: u32,
        bodies: u64,
        ctx: u64,
    }

    /// CUgraphNodeParams: the type, then one of the above.
    256 pub struct NodeParams {
        kind: u32,
        reserved: [u32; 3],
        node: [u64; 29],
        reserved_2: u64,
    }
}

impl NodeParams {
    /// With one of the structures above, or an address or handle.
    pub fn new<T: Pod>(kind: u32, node: &T) -> Self {
        let mut params = NodeParams { kind, ..NodeParams::default() };
        for (to, word) in params.node.iter_mut().zip(words(node)) {
            *to = word;
        }
        params
    }

    /// The structure of its type.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE where no such structure fits.
    pub fn node<T: Pod>(&self) -> CuResult<T> {
        take(&self.node).map(|(node, _)| node)
    }
}

impl CopyEnd {
    /// First byte and length of what a copy touches at this end, given the extent of the copy. A pitch or height of less than the
    /// copy needs is taken for what it needs: the driver refuses it, or means that.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE where it does not fit 64 bits.
    pub fn range(&self, copy: &Copy3D) -> CuResult<(u64, u64)> {
        self.range_in(copy).ok_or(CUresult::INVALID_VALUE)
    }

    fn range_in(&self, copy: &Copy3D) -> Option<(u64, u64)> {
        let base = if self.memory_type == memory_type::HOST { self.host } else { self.device };
        if copy.width_bytes == 0 || copy.height == 0 || copy.depth == 0 {
            return Some((base, 0));
        }
        let row = self.pitch.max(self.x_bytes.checked_add(copy.width_bytes)?);
        let plane = row.checked_mul(self.height.max(self.y.checked_add(copy.height)?))?;
        let offset =
            |x: u64, y: u64, z: u64| plane.checked_mul(z)?.checked_add(row.checked_mul(y)?)?.checked_add(x);
        let first = offset(self.x_bytes, self.y, self.z)?;
        let last = offset(
            self.x_bytes.checked_add(copy.width_bytes)?,
            self.y.checked_add(copy.height.checked_sub(1)?)?,
            self.z.checked_add(copy.depth.checked_sub(1)?)?,
        )?;
        Some((base.checked_add(first)?, last.checked_sub(first)?))
    }
}

impl MemsetNode {
    /// Bytes from the first to the last that is set.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE where they do not fit 64 bits.
    pub fn extent(&self) -> CuResult<u64> {
        let width = self.width.checked_mul(u64::from(self.element_bytes)).ok_or(CUresult::INVALID_VALUE)?;
        if width == 0 {
            return Ok(0);
        }
        rows(self.pitch.max(width), width, self.height)
    }
}

/// A node's parameters as they travel. Handles are the guest's names; a kernel's parameters travel beside it, as one buffer.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A kernel; `func` or `kern` names it. `extra` is how many bytes of its parameters were given as one buffer; 0: they came one by
    /// one.
    Kernel(KernelNode),
    /// A copy.
    Memcpy(MemcpyNode),
    /// A fill.
    Memset(MemsetNode),
    /// A graph.
    Child(ChildNode),
    /// Nothing.
    Empty,
    /// Waits for an event.
    EventWait(u64),
    /// Records an event.
    EventRecord(u64),
    /// Allocates memory.
    MemAlloc(MemAllocNode, Vec<CUmemAccessDesc>),
    /// Frees memory that a graph has allocated.
    MemFree(u64),
    /// Operations on words.
    BatchMemOp(BatchNode, Vec<MemOp>),
    /// Runs one of its body graphs; the guest's names for them.
    Conditional(ConditionalNode, Vec<u64>),
}

fn words<T: Pod>(value: &T) -> impl Iterator<Item = u64> {
    let (words, _) = value.as_bytes().as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word))
}

/// A structure out of the first words, and the words behind it.
fn take<T: Pod>(from: &[u64]) -> CuResult<(T, &[u64])> {
    let (value, rest) = T::read_from_prefix(from.as_bytes()).map_err(|_| CUresult::INVALID_VALUE)?;
    let rest = from.len().checked_sub(rest.len() / 8).and_then(|at| from.get(at..));
    rest.map(|rest| (value, rest)).ok_or(CUresult::INVALID_VALUE)
}

/// As many structures as the words make.
fn take_all<T: Pod>(mut from: &[u64], most: usize) -> CuResult<Vec<T>> {
    let mut all = Vec::new();
    while !from.is_empty() {
        if all.len() == most {
            return Err(CUresult::INVALID_VALUE);
        }
        let (one, rest) = take(from)?;
        all.push(one);
        from = rest;
    }
    Ok(all)
}

impl Node {
    /// CUgraphNodeType.
    pub fn kind(&self) -> u32 {
        match self {
            Node::Kernel(_) => kind::KERNEL,
            Node::Memcpy(_) => kind::MEMCPY,
            Node::Memset(_) => kind::MEMSET,
            Node::Child(_) => kind::GRAPH,
            Node::Empty => kind::EMPTY,
            Node::EventWait(_) => kind::WAIT_EVENT,
            Node::EventRecord(_) => kind::EVENT_RECORD,
            Node::MemAlloc(..) => kind::MEM_ALLOC,
            Node::MemFree(_) => kind::MEM_FREE,
            Node::BatchMemOp(..) => kind::BATCH_MEM_OP,
            Node::Conditional(..) => kind::CONDITIONAL,
        }
    }

    /// The words in which it travels.
    pub fn encode(&self) -> Vec<u64> {
        let mut all = vec![u64::from(self.kind())];
        match self {
            Node::Kernel(node) => all.extend(words(node)),
            Node::Memcpy(node) => all.extend(words(node)),
            Node::Memset(node) => all.extend(words(node)),
            Node::Child(node) => all.extend(words(node)),
            Node::Empty => {}
            Node::EventWait(word) | Node::EventRecord(word) | Node::MemFree(word) => all.push(*word),
            Node::MemAlloc(node, access) => {
                all.extend(words(node));
                all.extend(
                    access.iter().flat_map(|desc| words(&AccessWords::from(*desc)).collect::<Vec<_>>()),
                );
            }
            Node::BatchMemOp(node, operations) => {
                all.extend(words(node));
                all.extend(operations.iter().flat_map(|operation| words(operation).collect::<Vec<_>>()));
            }
            Node::Conditional(node, names) => {
                all.extend(words(node));
                all.extend(names);
            }
        }
        all
    }

    /// From the words in which it travelled.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE where they are none of a node's, CUDA_ERROR_NOT_SUPPORTED for a type of node that does not travel.
    pub fn decode(from: &[u64]) -> CuResult<Self> {
        /// One structure and nothing after it.
        fn only<T: Pod>(from: &[u64]) -> CuResult<T> {
            match take(from)? {
                (value, []) => Ok(value),
                _ => Err(CUresult::INVALID_VALUE),
            }
        }
        let (number, rest) = from.split_first().ok_or(CUresult::INVALID_VALUE)?;
        match u32::try_from(*number).map_err(|_| CUresult::INVALID_VALUE)? {
            kind::KERNEL => only(rest).map(Node::Kernel),
            kind::MEMCPY => only(rest).map(Node::Memcpy),
            kind::MEMSET => only(rest).map(Node::Memset),
            kind::GRAPH => only(rest).map(Node::Child),
            kind::EMPTY if rest.is_empty() => Ok(Node::Empty),
            kind::WAIT_EVENT => only(rest).map(Node::EventWait),
            kind::EVENT_RECORD => only(rest).map(Node::EventRecord),
            kind::MEM_ALLOC => {
                let (node, rest) = take(rest)?;
                let access: Vec<AccessWords> = take_all(rest, OPERATIONS_MAX)?;
                Ok(Node::MemAlloc(node, access.into_iter().map(CUmemAccessDesc::from).collect()))
            }
            kind::MEM_FREE => only(rest).map(Node::MemFree),
            kind::BATCH_MEM_OP => {
                let (node, rest) = take(rest)?;
                Ok(Node::BatchMemOp(node, take_all(rest, OPERATIONS_MAX)?))
            }
            kind::CONDITIONAL => {
                let (node, rest) = take(rest)?;
                Ok(Node::Conditional(node, take_all(rest, BODIES_MAX)?))
            }
            _ => Err(CUresult::NOT_SUPPORTED),
        }
    }
}

layouts! {
    /// A CUmemAccessDesc in whole words.
    16 pub struct AccessWords {
        kind: i32,
        id: i32,
        flags: i32,
        padding: i32,
    }
}

impl From<CUmemAccessDesc> for AccessWords {
    fn from(desc: CUmemAccessDesc) -> Self {
        AccessWords { kind: desc.location.kind, id: desc.location.id, flags: desc.flags, padding: 0 }
    }
}

impl From<AccessWords> for CUmemAccessDesc {
    fn from(words: AccessWords) -> Self {
        let location = crate::types::CUmemLocation { kind: words.kind, id: words.id };
        CUmemAccessDesc { location, flags: words.flags }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn nodes() -> Vec<Node> {
        let kernel = KernelNode {
            func: 7,
            grid: [1, 2, 3],
            block: [4, 5, 6],
            shared_bytes: 8,
            ctx: 9,
            ..Default::default()
        };
        let desc = CUmemAccessDesc { location: crate::types::CUmemLocation { kind: 1, id: 2 }, flags: 3 };
        vec![
            Node::Kernel(kernel),
            Node::Memcpy(MemcpyNode { ctx: 3, ..Default::default() }),
            Node::Memset(MemsetNode { dst: 1, value: 2, element_bytes: 4, ..Default::default() }),
            Node::Child(ChildNode { graph: 5, ownership: 1, padding: 0 }),
            Node::Empty,
            Node::EventWait(6),
            Node::EventRecord(7),
            Node::MemAlloc(MemAllocNode { bytes: 100, ..Default::default() }, vec![desc; 2]),
            Node::MemFree(8),
            Node::BatchMemOp(
                BatchNode { flags: 1, ..Default::default() },
                vec![MemOp { operation: 5, address: 9, ..Default::default() }; 3],
            ),
            Node::Conditional(ConditionalNode { handle: 4, size: 2, ..Default::default() }, vec![11, 12]),
        ]
    }

    #[test]
    fn every_node_travels() {
        for node in nodes() {
            let words = node.encode();
            assert_eq!(Node::decode(&words), Ok(node.clone()));
            // A part of a node is none, save that lists may be shorter by whole entries.
            if let Ok(shorter) = Node::decode(&words[..words.len() - 1]) {
                assert!(
                    matches!((&node, &shorter), (Node::Conditional(..), Node::Conditional(..))),
                    "{node:?}"
                );
            }
        }
        assert_eq!(Node::decode(&[]), Err(CUresult::INVALID_VALUE));
        assert_eq!(Node::decode(&[5, 0]), Err(CUresult::NOT_SUPPORTED));
        assert_eq!(Node::decode(&[3, 0]), Err(CUresult::NOT_SUPPORTED));
        assert_eq!(Node::decode(&[u64::MAX]), Err(CUresult::INVALID_VALUE));
    }

    #[test]
    fn a_structure_lies_in_the_general_one() {
        let node = MemsetNode { dst: 1, value: 2, ctx: 3, ..Default::default() };
        let params = NodeParams::new(kind::MEMSET, &node);
        assert_eq!((params.kind, params.node::<MemsetNode>()), (kind::MEMSET, Ok(node)));
        assert_eq!(NodeParams::new(kind::MEM_FREE, &7u64).node[..2], [7, 0]);
    }

    #[test]
    fn lists_are_bounded() {
        let many = Node::Conditional(ConditionalNode::default(), vec![1; BODIES_MAX + 1]);
        assert_eq!(Node::decode(&many.encode()), Err(CUresult::INVALID_VALUE));
    }

    fn end(x_bytes: u64, y: u64, z: u64, pitch: u64, height: u64) -> CopyEnd {
        CopyEnd {
            x_bytes,
            y,
            z,
            pitch,
            height,
            memory_type: memory_type::DEVICE,
            device: 0x1000,
            ..Default::default()
        }
    }

    #[test]
    fn a_copy_touches_what_lies_between_its_corners() {
        let copy = |width_bytes, height, depth| Copy3D { width_bytes, height, depth, ..Default::default() };
        assert_eq!(end(0, 0, 0, 0, 0).range(&copy(64, 1, 1)), Ok((0x1000, 64)));
        assert_eq!(end(4, 1, 0, 16, 4).range(&copy(8, 2, 1)), Ok((0x1000 + 20, 24)));
        assert_eq!(end(4, 1, 2, 16, 4).range(&copy(8, 2, 3)), Ok((0x1000 + 2 * 64 + 20, 2 * 64 + 24)));
        assert_eq!(end(0, 0, 0, 0, 0).range(&copy(8, 3, 1)), Ok((0x1000, 24)), "no pitch");
        assert_eq!(end(0, 0, 0, 16, 1).range(&copy(0, 5, 1)), Ok((0x1000, 0)));
        assert_eq!(end(0, 0, u64::MAX, 16, 1).range(&copy(8, 1, 1)), Err(CUresult::INVALID_VALUE));
        assert_eq!(end(u64::MAX, 0, 0, 16, 1).range(&copy(8, 1, 1)), Err(CUresult::INVALID_VALUE));
    }

    #[test]
    fn a_fill_touches_its_rows() {
        let fill = |pitch, width, height, element_bytes| {
            MemsetNode { pitch, width, height, element_bytes, ..Default::default() }.extent()
        };
        assert_eq!(fill(0, 10, 1, 4), Ok(40));
        assert_eq!(fill(64, 10, 3, 4), Ok(168));
        assert_eq!(fill(0, 10, 3, 4), Ok(120));
        assert_eq!(fill(64, 0, 3, 4), Ok(0));
        assert_eq!(fill(64, u64::MAX, 3, 4), Err(CUresult::INVALID_VALUE));
    }
}
