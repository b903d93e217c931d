//! What kind of work a call is: for accounts, and for who has to know whether it gives a device something to do ([`crate::gives_work`]).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used)]

use std::sync::LazyLock;

use crate::calls::copy;
use crate::types::CopyShape;
use crate::wire::{Reader, take_all};
use crate::{Call, CallInfo, chapters};

/// Kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Work {
    /// Kernels and graphs are launched.
    Launch,
    /// Bytes are copied, filled or moved.
    Copy,
    /// Memory is allocated, mapped, asked about or freed.
    Memory,
    /// Somebody waits for the device, or asks whether it is done.
    Wait,
    /// Code is loaded or asked about.
    Code,
    /// Everything else: devices, contexts, streams, events, graphs that are made.
    Other,
}

impl Work {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Launch, Self::Copy, Self::Memory, Self::Wait, Self::Code, Self::Other];

    /// Its name, for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Copy => "copy",
            Self::Memory => "memory",
            Self::Wait => "wait",
            Self::Code => "code",
            Self::Other => "other",
        }
    }

    /// Of a row, by its name first: chapters hold more than one kind.
    fn of_row(chapter: &str, row: &CallInfo) -> Self {
        const LAUNCHES: [&str; 3] = ["cuLaunchK", "cuLaunchCooperative", "cuGraphLaunch"];
        const COPIES: [&str; 5] = ["cuMemcpy", "cuMemset", "vgpuCopy", "vgpuArray", "cuMemPrefetch"];
        const WAITS: [&str; 3] = ["cuCtxSynchronize", "cuStreamQuery", "cuEventQuery"];
        let begins = |names: &[&str]| names.iter().any(|name| row.name.starts_with(name));
        if begins(&LAUNCHES) {
            Self::Launch
        } else if begins(&COPIES) {
            Self::Copy
        } else if begins(&WAITS) || row.name.ends_with("Synchronize") {
            Self::Wait
        } else {
            match chapter {
                "memory" | "virtual_memory" | "texture" => Self::Memory,
                "module" | "library" => Self::Code,
                _ if row.name == "vgpuImageData" => Self::Code,
                _ => Self::Other,
            }
        }
    }
}

/// The kind of the call with this wire id.
pub fn work_of(id: u32) -> Work {
    static ROWS: LazyLock<Vec<Work>> = LazyLock::new(|| {
        let rows = || chapters().flat_map(|(chapter, rows)| rows.iter().map(move |row| (chapter, row)));
        let len = rows().map(|(_, row)| row.id).max().map_or(0, |last| last.saturating_add(1));
        let mut kinds = vec![Work::Other; len as usize];
        for (chapter, row) in rows() {
            if let Some(kind) = kinds.get_mut(row.id as usize) {
                *kind = Work::of_row(chapter, row);
            }
        }
        kinds
    });
    ROWS.get(id as usize).copied().unwrap_or(Work::Other)
}

/// Which way bytes are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From pageable host memory to the device.
    Up,
    /// From the device to pageable host memory.
    Down,
    /// Between two ends that the worker knows: device memory, arrays, registered or pinned host memory.
    Between,
}

impl Direction {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Between];

    /// Its name, for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Between => "between",
        }
    }
}

fn volume(shape: &CopyShape) -> u64 {
    shape.width.saturating_mul(shape.height).saturating_mul(shape.depth)
}

/// How many bytes a call of [`Work::Copy`] copies; `None` for fills, and for what is no frame of its row.
pub fn copied(call: u32, fields: &[u8]) -> Option<(Direction, u64)> {
    fn take<'a, C: Call>(fields: &'a [u8]) -> Option<C::In<'a>> {
        take_all::<C::In<'a>>(&mut Reader::new(fields)).ok()
    }
    macro_rules! bytes {
        ($($row:ident $pattern:pat => $way:ident $bytes:expr;)+) => {
            match call {
                $( <copy::row::$row as Call>::ID => {
                    let $pattern = take::<copy::row::$row>(fields)?;
                    Some((Direction::$way, $bytes))
                } )+
                _ => None,
            }
        };
    }
    bytes! {
        cuMemcpyHtoD_v2 (_, len, _) => Up len as u64;
        cuMemcpyHtoDAsync_v2 (_, len, _, _) => Up len as u64;
        vgpuCopyIn (shape, _, _) => Up volume(shape);
        vgpuArrayIn (_, _, bytes, _) => Up bytes.len();
        cuMemcpyDtoH_v2 (_, len, _) => Down len as u64;
        cuMemcpyDtoHAsync_v2 (_, len, _, _) => Down len as u64;
        vgpuCopyOut (shape, _, _) => Down volume(shape);
        vgpuArrayOut (_, _, to, _) => Down to.len();
        cuMemcpyDtoD_v2 (_, _, len) => Between len as u64;
        cuMemcpyDtoDAsync_v2 (_, _, len, _) => Between len as u64;
        cuMemcpyPeer (_, _, _, _, len) => Between len as u64;
        cuMemcpyPeerAsync (_, _, _, _, len, _) => Between len as u64;
        vgpuCopyBetween (shape, _) => Between volume(shape);
        vgpuCopyBatch (copies, _, _) => Between copies.iter().fold(0, |sum, copy| sum.saturating_add(copy.len));
        vgpuArrayFromHost (_, _, _, len, _) => Between len as u64;
        vgpuArrayToHost (_, _, _, len, _) => Between len as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::all_calls;
    use crate::wire::Wire;

    fn id(name: &str) -> u32 {
        let found = all_calls().find(|call| call.name == name).map(|call| call.id);
        assert!(found.is_some(), "there is no {name}");
        found.unwrap_or_default()
    }

    #[test]
    fn calls_are_of_the_kind_that_people_expect() {
        for (name, expected) in [
            ("cuLaunchKernel", Work::Launch),
            ("cuGraphLaunch", Work::Launch),
            ("cuMemcpyHtoDAsync_v2", Work::Copy),
            ("cuMemsetD32Async", Work::Copy),
            ("vgpuCopyBetween", Work::Copy),
            ("cuMemAlloc_v2", Work::Memory),
            ("cuMemMap", Work::Memory),
            ("cuStreamSynchronize", Work::Wait),
            ("cuCtxSynchronize", Work::Wait),
            ("cuEventSynchronize", Work::Wait),
            ("cuModuleGetFunction", Work::Code),
            ("cuStreamCreate", Work::Other),
            ("cuLaunchHostFunc", Work::Other),
        ] {
            assert_eq!(work_of(id(name)), expected, "{name}");
        }
        assert_eq!(work_of(u32::MAX), Work::Other);
        assert!(Work::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
        assert!(Direction::ALL.iter().enumerate().all(|(at, way)| *way as usize == at));
    }

    #[test]
    fn launches_copies_and_fills_give_work_and_nothing_else_does() {
        for name in [
            "cuLaunchKernel",
            "cuLaunchKernelEx",
            "cuLaunchCooperativeKernel",
            "cuGraphLaunch",
            "cuMemcpyDtoDAsync_v2",
            "cuMemsetD8_v2",
            "vgpuCopyBatch",
            "vgpuArrayIn",
        ] {
            assert!(crate::gives_work(id(name)), "{name}");
        }
        for name in
            ["cuLaunchHostFunc", "cuMemAlloc_v2", "cuStreamSynchronize", "cuEventRecord", "cuModuleLoadData"]
        {
            assert!(!crate::gives_work(id(name)), "{name}");
        }
    }

    #[test]
    fn bytes_of_a_copy_are_read_from_its_frame() {
        let mut fields = Vec::new();
        for word in [7u64, 9, 4096] {
            word.put(&mut fields);
        }
        let id = <copy::row::cuMemcpyDtoD_v2 as Call>::ID;
        assert_eq!(copied(id, &fields), Some((Direction::Between, 4096)));
        fields.pop();
        assert_eq!(copied(id, &fields), None);
        assert_eq!(copied(<copy::row::cuMemsetD8_v2 as Call>::ID, &fields), None);
    }
}
