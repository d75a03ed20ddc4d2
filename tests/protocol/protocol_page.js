// Reads the tables of docs/protocol.md, and checks messages against them.

/** Split a text at a separator that is not in parentheses. */
function split(text, separator) {
  const parts = [""]
  let depth = 0
  for (let i = 0; i < text.length; i += 1) {
    if (text[i] === "(") depth += 1
    if (text[i] === ")") depth -= 1
    if (depth === 0 && text.startsWith(separator, i)) {
      parts.push("")
      i += separator.length - 1
    } else parts[parts.length - 1] += text[i]
  }
  return parts
}

const SIMPLE = {
  string: (value) => typeof value === "string",
  integer: (value) => Number.isInteger(value),
  number: (value) => typeof value === "number",
  boolean: (value) => typeof value === "boolean",
  null: (value) => value === null,
  array: (value) => Array.isArray(value?.shape) && value.data !== undefined,
  request: (value) => typeof value.type === "string",
}

class Page {
  constructor() {
    /** name -> field -> {type, isRequired} */
    this.tables = new Map()
    this.checked = new Set()
  }

  /** Check that a message has all required fields, no unknown one, and values of the right types. */
  check(name, message) {
    const table = this.tables.get(name)
    if (!table) throw new Error(`the page has no table of ${name}`)
    this.checked.add(name)
    for (const [field, { isRequired }] of table) {
      if (isRequired && !(field in message)) throw new Error(`${name}: ${field} is missing`)
    }
    for (const [field, value] of Object.entries(message)) {
      if (field === "type") continue
      const row = table.get(field)
      if (!row) throw new Error(`${name}: the page has no field ${field}`)
      if (!this.isOfType(row.type, value)) {
        throw new Error(`${name}: ${field} is ${JSON.stringify(value)}, not ${row.type}`)
      }
    }
  }

  checkRequest(type, fields) {
    this.check(type, fields)
  }

  isOfType(type, value) {
    const choices = split(type, " or ")
    if (choices.length > 1) return choices.some((choice) => this.isOfType(choice, value))
    if (type.startsWith("`")) return JSON.parse(type.slice(1, -1)) === value
    if (type.startsWith("[")) {
      if (value === null || typeof value !== "object") return false
      this.check(type.slice(1, type.indexOf("]")), value)
      return true
    }
    if (type.startsWith("list of ")) {
      return Array.isArray(value) && value.every((one) => this.isOfType(type.slice(8), one))
    }
    if (type.startsWith("map of string to ")) {
      return Object.values(value).every((one) => this.isOfType(type.slice(17), one))
    }
    if (type.startsWith("(")) {
      const kinds = split(type.slice(1, -1), ", ")
      return value.length === kinds.length && kinds.every((kind, i) => this.isOfType(kind, value[i]))
    }
    if (!(type in SIMPLE)) throw new Error(`the page does not say what ${type} is`)
    return SIMPLE[type](value)
  }
}

/** Return the tables of a page by the names in the headings or markers above them. */
export function readPage(text) {
  const page = new Page()
  let name = ""
  for (const line of text.split("\n")) {
    const title = /^#+ `(\w+)`$/.exec(line) ?? /^<!-- generated: (\w+) -->$/.exec(line)
    if (title) {
      name = title[1]
      page.tables.set(name, new Map())
    }
    const row = /^\| `(\w+)` \| (.*?) \| (.*?) \|/.exec(line)
    if (row) page.tables.get(name).set(row[1], { type: row[2], isRequired: row[3] === "required" })
  }
  return page
}
