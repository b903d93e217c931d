//! The tables, as long as driver 580's and with NULL where it has NULL. Their names are those of public lists.

use cuda_api::CUresult;

use super::compiler;
use super::layout::{Table, Word, table};
use super::slots::{
    cls, context_checks, integrity, runtime, runtime_hooks, tools_context, tools_module, tools_tls,
};

/// What cudart alone needs of the driver.
pub(super) static RUNTIME: Table<13> = table!("CUDART" words 13 [
    1, 2 => runtime::primary_context, 3, 4, 5, 6 => runtime::load_module, 7 => runtime::unload_module, 8, 9, null, 11,
    12 => runtime::load_compilers
]);

/// The calling thread, for libraries beside the runtime.
pub(super) static TOOLS_TLS: Table<3> = table!("TOOLS_TLS" words 3 [1, 2 => tools_tls::current_context]);

/// Which of the runtime's events a tool wants to be told of.
pub(super) static RUNTIME_HOOKS: Table<7> = table!("RTHOOKS" words 7 [
    1, 2 => runtime_hooks::api_subscriptions, 3, 4, 5, 6 => runtime_hooks::event_subscriptions
]);

/// Context-local storage: the one table without a size; a NULL ends it.
pub(super) static CONTEXT_STORAGE: Table<4> =
    table!("CLS" [0 => cls::put, 1 => cls::delete, 2 => cls::get, null]);

/// The runtime's handshake.
pub(super) static INTEGRITY: Table<3> =
    table!("INTEGRITY" words 3 [1 => integrity::answer, 2 => integrity::enable]);

/// Questions about a context before it is used.
pub(super) static CONTEXT_CHECKS: Table<15> = table!("CONTEXT_CHECKS" words 15 [
    1, 2 => context_checks::context, 3 => context_checks::process, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14
]);

/// Contexts, for tools; cuBLAS asks it too.
pub(super) static TOOLS_CONTEXT: Table<93> = table!("TOOLSCTX" words 93 [
    1, 2, 3 => tools_context::device, 4 => tools_context::id, 5, 6, 7, 8, 9,
    10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
    30, 31, 32, 33, 34, 35, 36, 37, 38, 39 => tools_context::stream_id, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49,
    50, 51 => tools_context::stream_object, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69,
    70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89,
    90, null, 92
]);

/// Modules and their functions, for tools; cuFFT asks it too.
pub(super) static TOOLS_MODULE: Table<99> = table!("TOOLSMOD" words 99 [
    1, 2, 3, 4, 5, 6, 7 => tools_module::functions, 8, 9,
    10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
    30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49,
    50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69,
    70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89,
    90, 91, 92, null, 94, 95, 96, 97, 98
]);

/// A table without a public name that cuBLASLt 13 asks for before most matrix products: it crashes without the table, and
/// does without the one slot that it then calls (4, two results).
pub(super) static CUBLASLT: Table<11> = table!("1734DC26" words 11 [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);

/// NVRTC's cache of what it has compiled.
pub(super) static COMPILER: Table<7> = table!("NVRTC" words 7 [
    1 => compiler::open, 2 => compiler::close, 3 => compiler::find, 4 => compiler::store, 5, 6 => compiler::release
]);

/// CUPTI's main table. No slot is served: profiling cannot be offered.
pub(super) static CUPTI: Table<67> = table!("CUPTI" words 67 [
    1, 2, 3, 4, 5, 6, 7, 8, 9,
    10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
    30, 31, 32, 33, 34, 35, null, null, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49,
    50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66
]);
