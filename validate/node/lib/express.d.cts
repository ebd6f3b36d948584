import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Accepted, Rejection, Validator } from './index.cjs'

declare global {
  namespace Express {
    interface Request {
      /** The request's token, behind `bearer`. */
      token?: Accepted
    }
  }
}

/** How requests are answered. */
export interface BearerOptions {
  /** Scope tokens that a token must all have: an array, or one text with spaces. */
  scope?: string | readonly string[]
  /** What `WWW-Authenticate` calls the protected space. */
  realm?: string
  /** Seconds after which to ask again when the token could not be judged now. Default: 5. */
  retryAfter?: number
  /** Hears of each rejection; its detail is not for whoever sent the token. */
  onRejection?: (rejection: Rejection, req: IncomingMessage) => void
}

/**
 * A middleware that lets only requests with a good bearer token through, and sets `req.token`.
 *
 * Answers as RFC 6750, section 3 says: 401 `invalid_token`, 403 `insufficient_scope`, 400 for a
 * request whose token cannot be told; 503 with `Retry-After` when keys or log could not be had.
 */
export function bearer(
  validator: Pick<Validator, 'validate'>,
  options?: BearerOptions,
): (req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void) => void
