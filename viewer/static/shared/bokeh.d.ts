/** The part of BokehJS's public interface that the page uses. */

interface BokehModel {
  id: string
  name: string | null
}

interface BokehDataSource extends BokehModel {
  data: Record<string, ArrayLike<unknown>>
}

interface BokehDocument {
  get_model_by_name(name: string): BokehModel | null
  on_event(name: "connection_lost", callback: () => void): void
}

declare const Bokeh: {
  documents: BokehDocument[]
}
