/** Numbers and sentences as the page writes them. */

/**
 * Format a statistic in three significant digits: `0.0123` → `0.0123`, `0.00123` → `1.23e-3`.
 * @param {number | null | undefined} value
 */
export function formatNumber(value) {
  if (value == null || !Number.isFinite(value)) return "–"
  if (value === 0) return "0"
  const magnitude = Math.abs(value)
  return magnitude < 0.01 || magnitude >= 1e5 ? value.toExponential(2) : value.toPrecision(3)
}

/**
 * Begin a text with a capital letter, and end it with a period unless it ends with a mark of its own.
 * @param {string} text
 */
export function asSentence(text) {
  const sentence = text.charAt(0).toUpperCase() + text.slice(1)
  return /[.!?…]$/.test(sentence) || sentence === "" ? sentence : `${sentence}.`
}

/**
 * Join the parts that are not empty.
 * @param {(string | null | undefined | false)[]} parts
 */
export function joinFacts(parts) {
  return parts.filter(Boolean).join(" · ")
}

/**
 * Parse a learning rate or a weight decay; null if the text is not a finite number from 0 on.
 * @param {string} text with a decimal point or a decimal comma
 */
export function parseRate(text) {
  const value = Number(text.trim().replace(",", "."))
  return text.trim() !== "" && Number.isFinite(value) && value >= 0 ? value : null
}

/**
 * Format an integer with narrow no-break spaces: `22720` → `22 720`.
 * @param {number} n
 */
export function formatCount(n) {
  return String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f")
}

/**
 * Format a number of things: `1 filter`, `22 720 filters`.
 * @param {number} n
 * @param {string} noun in the singular
 */
export function countOf(n, noun) {
  return `${formatCount(n)} ${noun}${n === 1 ? "" : "s"}`
}

/**
 * Format a count with an SI prefix: `1819066368` → `1.82 G`.
 * @param {number} n
 */
export function formatSi(n) {
  for (const [prefix, size] of /** @type {[string, number][]} */ ([["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]])) {
    if (n >= size) return `${(n / size).toFixed(Math.max(0, 2 - Math.floor(Math.log10(n / size))))}\u202f${prefix}`
  }
  return String(n)
}
