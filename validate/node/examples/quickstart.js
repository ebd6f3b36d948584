// A relying party: judges one token.
//
// usage: node quickstart.js ISSUER AUDIENCE TOKEN

import { Rejection, Validator } from 'chancery'

const [issuer, audience, token] = process.argv.slice(2)
// Keep one for as long as the program runs: it finds the key set, and keeps it fresh.
const validator = new Validator({ issuer, audience })

try {
  const { claims, kid } = await validator.validate(token)
  console.log(`valid, signed by ${kid}`)
  console.log(JSON.stringify(claims))
} catch (error) {
  if (!(error instanceof Rejection)) throw error
  console.error(`${error.code}: ${error.detail}`)
  console.error(error.remedy)
  process.exitCode = 1
}
