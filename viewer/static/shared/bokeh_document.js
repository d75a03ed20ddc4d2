/** The document that Bokeh builds from what the server sends. */

/* global Bokeh */

/** @import {PageLink} from "./link.js" */

const POLL_MS = 20

/**
 * @param {string} name
 * @returns {any} the model of this name, null if there is none (yet)
 */
export const modelNamed = (name) => Bokeh.documents[0]?.get_model_by_name(name) ?? null

/**
 * @param {BokehModel} model anywhere in the document
 * @returns {BokehView | null} the view that draws it
 */
export const viewOf = (model) => Bokeh.index.find_one_by_id(model.id)

/**
 * Wait until Bokeh has built the document.
 * @returns {Promise<PageLink>}
 */
export async function documentReady() {
  for (;;) {
    const link = modelNamed("link")
    if (link != null) return link
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

/**
 * Call this when the connection to the server is lost.
 * @param {() => void} callback
 */
export function onConnectionLost(callback) {
  Bokeh.documents[0]?.on_event("connection_lost", callback)
}
