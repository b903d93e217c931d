//! Branches and ends. Calls have a syntax of their own and are lowered where they are read.

use crate::build::{Builder, Operand};
use crate::error::LoadError;
use crate::ops::{Mods, exactly};
use crate::run::code::Run;
use crate::types::Ty;

pub(crate) fn lower<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let _ = matches!(base, "bra" | "brx" | "ret") && m.flag("uni");
    if base == "brx" {
        let indexed = m.flag("idx");
        m.done()?;
        let [index, table] = exactly::<2>(b, o)?;
        let (true, &Operand::Name(table, 0)) = (indexed, table) else { return Err(m.refuse()) };
        let index = b.source(index, Ty::U32)?;
        let Some(table) = b.find_table(table) else {
            return Err(b.syntax(format!("`.branchtargets` named `{table}` is not declared")));
        };
        return b.emit(Run::BranchIndexed, &[index], table as u64);
    }
    m.done()?;
    if base == "bra" {
        let [Operand::Name(label, 0)] = exactly::<1>(b, o)? else {
            return Err(b.syntax("a label is needed"));
        };
        return b.branch(label);
    }
    exactly::<0>(b, o)?;
    let run = match base {
        "ret" => Run::Return,
        "exit" => Run::Exit,
        _ => Run::Trap,
    };
    b.emit(run, &[], 0)
}
