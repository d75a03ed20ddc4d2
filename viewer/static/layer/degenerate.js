/** Filters that have no place among the others, in words. */

import {config} from "../shared/page_config.js"

const {none, zero, nonfinite, identical} = config.degenerate_kinds

const WORDS = {[none]: "", [zero]: "all zero", [nonfinite]: "not finite", [identical]: "identical to another"}

// Such a filter need not be dead, and its newest map need not be zero: the layout is older.
/** @type {Record<string, string>} what "all values are zero" means in a view */
const ZERO_WORDS = {
  gradients: "without gradient", activation_gradients: "without gradient", activations: "silent when arranged", maps: "",
}

/**
 * Describe why a filter of a view is degenerate; empty if it is not.
 * @param {number} kind
 * @param {string} viewName
 */
export function describeDegenerate(kind, viewName) {
  return (kind === zero ? ZERO_WORDS[viewName] : null) ?? WORDS[kind] ?? ""
}

/**
 * Count the degenerate filters of a view by their kind: `2 all zero · 1 identical`.
 * @param {ArrayLike<number>} kinds
 * @param {string} viewName
 */
export function summarizeDegenerate(kinds, viewName) {
  return [zero, nonfinite, identical]
    .map((kind) => ({kind, count: Array.from(kinds).filter((one) => one === kind).length}))
    .filter(({count}) => count > 0)
    .map(({kind, count}) => `${count} ${kind === identical ? "identical" : describeDegenerate(kind, viewName)}`)
    .join(" · ")
}
