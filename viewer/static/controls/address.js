/** The page's address: a link to the run, the layer, the filter, the pane and the moment that the page shows. */

import {subscribe} from "../shared/link.js"

/** @import {AddressData} from "../shared/parts.js" */

const WRITE_MS = 500 // browsers refuse to change an address more than a few times per second

let writtenAt = -WRITE_MS
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer

export function startAddress() {
  subscribe("address", (parameters) => {
    if (!parameters.run) return // what the address names is not shown yet
    clearTimeout(timer)
    const isOtherRun = new URL(location.href).searchParams.get("run") !== parameters.run
    const wait = isOtherRun ? 0 : writtenAt + WRITE_MS - performance.now()
    if (wait <= 0) write(parameters)
    else timer = setTimeout(() => write(parameters), wait)
  })
}

/** @param {AddressData} parameters */
function write(parameters) {
  const address = withParameters(location.href, parameters)
  if (address === location.href) return
  writtenAt = performance.now()
  history.replaceState(history.state, "", address)
}

/**
 * Return an address with these parameters. Others stay; those that are "" are removed.
 * @param {string} address
 * @param {AddressData} parameters
 */
export function withParameters(address, parameters) {
  const url = new URL(address)
  for (const [name, value] of Object.entries(parameters)) {
    if (value === "") url.searchParams.delete(name)
    else url.searchParams.set(name, value)
  }
  return url.href
}
